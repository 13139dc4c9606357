"""Conditions on tensors that contracts ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaptkit.testing.requirements import require

# Sums in a batched product are taken in another order; half precisions keep 8 to 11 bits of each
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 5e-2, torch.float16: 1e-2}


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
