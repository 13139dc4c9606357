"""Options of the modality `audio`."""

from __future__ import annotations

from pydantic import Field

from adaptkit import Options


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
