"""What the contract checks try the modality with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from adaptkit.testing import Example


def make_examples(directory: Path) -> list[Example]:
    """Pictures from a file, bytes and memory; one cut short, one too large, and arrays that are no pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    raw = _png(Image.fromarray(noise))
    path = directory / "blue.png"
    path.write_bytes(_png(Image.new("RGB", (5, 3), "blue")))
    cut_short = directory / "cut_short.png"
    cut_short.write_bytes(raw[: len(raw) // 2])
    good = [path, raw, Image.new("RGB", (4, 4)), noise[:9]]
    bad = [cut_short, np.ones((2, 2, 7), dtype=np.uint8), Image.new("RGB", (51, 50))]
    return [Example({"max_pixels": 2500}, items=good, bad_items=bad)]


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
