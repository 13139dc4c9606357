"""The modality `audio`."""

from __future__ import annotations

from adaptkit import hookimpl
from adaptkit.hookspecs import ModalityComponent
from adaptkit_audio.options import AudioOptions

__all__ = ["AudioOptions", "register_modalities"]


@hookimpl
def register_modalities(register: type[ModalityComponent]) -> None:
    """Offer `audio`."""
    register(
        name="audio",
        build="adaptkit_audio.modality:AudioModality",
        options=AudioOptions,
        description="Recordings, read as one channel.",
        stand_in="adaptkit_audio.stand_in:write_tones",
        pipeline_tag="audio-text-to-text",
        examples="adaptkit_audio.examples:make_examples",
    )
