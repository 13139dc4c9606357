"""What the surgical tools are given, checked before they look into it."""

from __future__ import annotations

from typing import Any

from torch import nn

from adaptkit.errors import ModelError, wrong_type


def require_module(what: str, value: Any) -> None:
    """Raise a `ModelError` where a value is not a module."""
    if not isinstance(value, nn.Module):
        raise ModelError(wrong_type(what, "a torch module", value))
