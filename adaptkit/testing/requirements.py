"""What contract checks are made of: conditions that must hold, and the error that says which did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ContractError(AssertionError):
    """A plugin breaks its contract; the message says which sentence of it."""


def require(condition: bool, message: str) -> None:
    """Raise a `ContractError` where a condition does not hold."""
    if not condition:
        raise ContractError(message)


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
