"""The modality keeps adaptkit's contract."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from adaptkit.testing import check_modality


def _wav(seed: int, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).standard_normal(800) * 0.1
    soundfile.write(buffer, noise, 8000, format="WAV", **settings)
    return buffer.getvalue()


def test_audio_keeps_the_contract_of_a_modality(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(_wav(0))
    cut_short = tmp_path / "cut_short.wav"
    cut_short.write_bytes(_wav(1)[:900])
    tone = np.sin(np.arange(400) / 5).astype(np.float32)
    good = [path, _wav(2), io.BytesIO(_wav(3)), (tone, 16000), {"array": tone, "sampling_rate": 8000}]
    bad = [
        cut_short,
        tmp_path,
        b"no recording",
        tone,
        (tone * np.nan, 16000),
        (np.zeros(9), 16000),
        "https://example.org/a.wav",
    ]
    check_modality("audio", {}, good, bad)
    check_modality("audio", {"max_seconds": 0.1}, [path], [(tone, 1000)])
