"""The modality `audio`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adaptkit import Options, hookimpl

if TYPE_CHECKING:
    from adaptkit.testing import Example
    from adaptkit_audio.modality import AudioModality

__all__ = ["AudioOptions", "register_modalities"]


class AudioOptions(Options):
    """Limits on what is read.

    Attributes:
        max_seconds: Length beyond which a recording is refused, by its header, before it is decoded.
        max_samples: Samples of one channel beyond which a recording is refused before it is decoded; each takes four
            bytes.
        max_bytes: Size beyond which a file is refused before it is read.
        allow_silence: Accept recordings whose every sample is zero.
    """

    max_seconds: float = Field(default=600.0, gt=0)
    max_samples: int = Field(default=60_000_000, ge=1)
    max_bytes: int = Field(default=256 * 1024**2, ge=1)
    allow_silence: bool = False


def _build(options: AudioOptions) -> AudioModality:
    from adaptkit_audio.modality import AudioModality

    return AudioModality(options)


def _stand_in(directory: Path, number: int) -> Path:
    from adaptkit_audio.stand_in import write_tones

    return write_tones(directory, number)


def _examples(directory: Path) -> list[Example]:
    from adaptkit_audio.examples import make_examples

    return make_examples(directory)


@hookimpl
def register_modalities(register: Any) -> None:
    """Offer `audio`."""
    register(
        name="audio",
        build=_build,
        options=AudioOptions,
        description="Recordings, read as one channel.",
        stand_in=_stand_in,
        examples=_examples,
    )
