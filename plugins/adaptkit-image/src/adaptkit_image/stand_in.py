"""Small pictures for rehearsals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_SHAPES = ((48, 64), (64, 48), (32, 96), (64, 64))


def write_picture(directory: Path, number: int) -> Path:
    """Write a picture of coloured blocks; another number gives other blocks and another shape."""
    path = directory / f"{number}.png"
    height, width = _SHAPES[number % len(_SHAPES)]
    blocks = np.random.default_rng(number).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(path)
    return path
