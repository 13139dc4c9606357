"""Small recordings, for rehearsals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

_RATE = 16_000


def write_tones(directory: Path, number: int) -> Path:
    """Write half a second of two tones as wav; another number is another pair."""
    low, high = 200 + 40 * (number % 10), 900 + 70 * (number // 10 % 50)
    time = np.arange(_RATE // 2) / _RATE
    samples = 0.3 * np.sin(2 * np.pi * low * time) + 0.2 * np.sin(2 * np.pi * high * time + number)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{number}.wav"
    soundfile.write(path, samples, _RATE)
    return path
