"""What the contract checks try the modality with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from adaptkit.testing import Example
from adaptkit_audio.stand_in import write_tones

_RATE = 8000


def make_examples(directory: Path) -> list[Example]:
    """Files, bytes and arrays; damaged, silent, long and mislabelled ones."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 800)
    path = write_tones(directory, 0)
    cut_short = directory / "cut_short.wav"
    cut_short.write_bytes(path.read_bytes()[:900])
    good = [
        path,
        _encoded(noise[:700], "WAV"),
        _encoded(noise, "FLAC"),
        _encoded(noise[:600], "MP3"),
        (noise, _RATE),
        {"array": noise[:99], "sampling_rate": 16_000},
    ]
    damaged = [cut_short, _encoded(noise, "FLAC")[:-300], b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200), b"text" * 99]
    wrong = [noise, (noise * np.nan, _RATE), (np.zeros(9), _RATE), (noise[:0], _RATE), (noise, 0)]
    silent = _encoded(np.zeros(9), "WAV")
    return [
        Example(items=good, bad_items=[*damaged, *wrong, silent]),
        Example({"max_seconds": 0.1, "allow_silence": True}, [silent, _encoded(noise, "WAV")], [path, (noise, 1000)]),
    ]


def _encoded(samples: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _RATE, format=kind)
    return buffer.getvalue()
