"""The encoder `whisper`: the encoders of Whisper models."""

from __future__ import annotations

from adaptkit import hookimpl
from adaptkit.hookspecs import EncoderComponent
from adaptkit_whisper.options import WhisperOptions

__all__ = ["WhisperOptions", "register_encoders"]


@hookimpl
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer `whisper`."""
    register(
        name="whisper",
        build="adaptkit_whisper.loading:load_encoder",
        options=WhisperOptions,
        description="Encoders of Whisper models, through transformers or the openai-whisper package.",
        build_preprocessor="adaptkit_whisper.loading:load_preprocessor",
        stand_in="adaptkit_whisper.creation:write_stand_in",
        missing="adaptkit_whisper.checkpoint:missing",
        wrap="adaptkit_whisper.loading:wrap_model",
        create="adaptkit_whisper.creation:create",
        examples="adaptkit_whisper.examples:make_examples",
    )
