"""What the contract checks try the encoder with: tiny checkpoints, written on the spot."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from adaptkit_audio.clip import AudioClip

from adaptkit.testing import Example
from adaptkit_whisper.creation import write_stand_in
from adaptkit_whisper.options import WhisperOptions


def make_examples(directory: Path) -> list[Example]:
    """A model of each backend that is installed, and recordings of one window and of several, at several rates."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 24_000).astype(np.float32)
    items = [AudioClip(noise[:9_000], 16_000), AudioClip(noise, 16_000), AudioClip(noise[:3_000], 11_025)]
    too_long = AudioClip(np.resize(noise, 16_000 * 7), 16_000)
    cases: list[dict[str, Any]] = [{"trim": True}, {"stack": 4, "feature_layer": -2}]
    if find_spec("whisper") is not None:
        cases.append({"backend": "openai-whisper", "pool": 2})
    examples = []
    for number, case in enumerate(cases):
        stand_in = write_stand_in(WhisperOptions(path="./whisper", **case), directory / str(number))
        options = {**case, "path": stand_in.path, "max_windows": 6}
        variants = [{**options, "dtype": "bfloat16"}, {**options, "feature_layer": 1}]
        examples.append(Example(options, items, [too_long, noise], variants))
    return examples
