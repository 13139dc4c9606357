"""The encoder `open_clip`: vision towers of open_clip, with their own transforms."""

from __future__ import annotations

import sys
from typing import Any

from adaptkit import hookimpl
from adaptkit.hookspecs import EncoderComponent
from adaptkit_open_clip.options import OpenClipOptions, PreprocessOptions

__all__ = ["OpenClipOptions", "PreprocessOptions", "register_encoders"]


def _wrap(module: Any, options: dict[str, Any]) -> Any:
    if "open_clip" not in sys.modules:  # whoever has a model of open_clip has imported it
        return None
    from adaptkit_open_clip.encoder import wrap_model

    return wrap_model(module, options)


@hookimpl
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer `open_clip`."""
    register(
        name="open_clip",
        build="adaptkit_open_clip.encoder:load_encoder",
        options=OpenClipOptions,
        description="Vision towers of open_clip, with their own transforms.",
        build_preprocessor="adaptkit_open_clip.encoder:load_preprocessor",
        stand_in="adaptkit_open_clip.stand_in:write_stand_in",
        missing="adaptkit_open_clip.checkpoint:missing",
        wrap=_wrap,
        examples="adaptkit_open_clip.examples:make_examples",
    )
