"""What contract checks are made of: conditions that must hold, and the error that says which did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Sums in a batched product are taken in another order; half precisions keep 8 to 11 bits of each
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class ContractError(AssertionError):
    """A plugin breaks its contract; the message says which sentence of it."""


def require(condition: bool, message: str) -> None:
    """Raise a `ContractError` where a condition does not hold."""
    if not condition:
        raise ContractError(message)


def require_shape(tensor: Any, shape: tuple[int, ...], what: str) -> None:
    """`tensor` must be a tensor of this shape."""
    found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
    require(found == shape, f"{what} should give a tensor of shape {shape}, gave {found}")


def require_close(found: Tensor, expected: Tensor, message: str) -> None:
    """Two tensors must agree to what another order of summation explains."""
    require_shape(found, tuple(expected.shape), message)
    difference = float((found - expected).abs().max())
    limit = _TOLERANCES[expected.dtype] * max(1.0, float(expected.abs().max()))
    require(difference <= limit, f"{message} (largest difference {difference:.2g})")


def all_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether two sequences hold the same tensors, bit by bit."""
    return len(found) == len(expected) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def require_refused(action: Callable[[], Any], error_type: type[Exception], what: str, *, naming: str = "") -> None:
    """An action must raise this error, with words, and with `naming` among them."""
    try:
        action()
    except error_type as error:
        message = str(error)
        require(bool(message.strip()), f"{what}: the {error_type.__name__} says nothing")
        require(naming in message, f"{what}: the message does not name {naming!r}: {message}")
    except Exception as error:  # any other type would reach the user as a traceback
        found = type(error).__name__
        raise ContractError(f"{what} raises {found} instead of {error_type.__name__}: {error}") from error
    else:
        raise ContractError(f"{what} is accepted; it must raise {error_type.__name__}")


def brief(value: Any) -> str:
    """A value in a message: short, and without addresses in memory."""
    return type(value).__name__ if type(value) is object else repr(value)[:60]
