"""The modality `audio`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from adaptkit import Options, hookimpl

if TYPE_CHECKING:
    from adaptkit_audio.modality import AudioModality

__all__ = ["AudioOptions", "register_modalities"]


class AudioOptions(Options):
    """Limits on what is read.

    Attributes:
        max_seconds: Length beyond which a recording is refused, by its header, before it is decoded.
        max_bytes: Size beyond which a file is refused before it is read.
        allow_silence: Accept recordings whose every sample is zero.
    """

    max_seconds: float = Field(default=600.0, gt=0)
    max_bytes: int = Field(default=256 * 1024**2, ge=1)
    allow_silence: bool = False


def _build(options: AudioOptions) -> AudioModality:
    from adaptkit_audio.modality import AudioModality

    return AudioModality(options)


@hookimpl
def register_modalities(register: Any) -> None:
    """Offer `audio`."""
    register(name="audio", build=_build, options=AudioOptions, description="Recordings, read as one channel.")
