"""The encoder `clip`: CLIP, SigLIP and DINOv2 vision models of transformers."""

from __future__ import annotations

from adaptkit import hookimpl
from adaptkit.hookspecs import EncoderComponent
from adaptkit_clip.options import ClipOptions, TilingOptions

__all__ = ["ClipOptions", "TilingOptions", "register_encoders"]


@hookimpl
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer `clip`."""
    register(
        name="clip",
        build="adaptkit_clip.encoder:load_encoder",
        options=ClipOptions,
        description="CLIP, SigLIP and DINOv2 vision models of transformers.",
        build_preprocessor="adaptkit_clip.preprocessing:load_preprocessor",
        stand_in="adaptkit_clip.stand_in:write_stand_in",
        missing="adaptkit_clip.checkpoint:missing",
        wrap="adaptkit_clip.encoder:wrap_model",
        examples="adaptkit_clip.examples:make_examples",
        create="adaptkit_clip.creation:create_model",
    )
