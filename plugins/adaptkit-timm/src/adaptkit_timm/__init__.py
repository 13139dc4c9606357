"""The encoder `timm`: backbones of timm, with their own data configuration."""

from __future__ import annotations

import sys
from typing import Any

from adaptkit import hookimpl
from adaptkit.hookspecs import EncoderComponent
from adaptkit_timm.options import TimmOptions

__all__ = ["TimmOptions", "register_encoders"]


def _wrap(module: Any, options: dict[str, Any]) -> Any:
    if "timm" not in sys.modules:  # whoever has a model of timm has imported it
        return None
    from adaptkit_timm.encoder import wrap_model

    return wrap_model(module, options)


@hookimpl
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer `timm`."""
    register(
        name="timm",
        build="adaptkit_timm.encoder:load_encoder",
        options=TimmOptions,
        description="Backbones of timm, with their own data configuration.",
        build_preprocessor="adaptkit_timm.encoder:load_preprocessor",
        stand_in="adaptkit_timm.stand_in:write_stand_in",
        missing="adaptkit_timm.checkpoint:missing",
        wrap=_wrap,
        examples="adaptkit_timm.examples:make_examples",
    )
