"""What the contract checks try the modality with."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def tower_examples(directory: Path, models: dict[str, Any], write_stand_in: Callable[..., Any]) -> list[Example]:
    """What encoders with the options `path`, `layer` and `pad` are tried with: stand-ins, and pictures of two shapes.

    Args:
        directory: Folder to write to.
        models: Options of the models that stand-ins are like, by name.
        write_stand_in: As encoders register it.
    """
    noise = np.random.default_rng(0).integers(0, 256, (40, 62, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise[:, :30])]
    examples = []
    for name, options in models.items():
        given = {"path": write_stand_in(options, directory / name).path}
        variants = [{**given, "layer": -1}, {**given, "pad": "square"}]
        examples.append(Example(given, items=pictures, bad_items=[noise, "picture.png"], variants=variants))
    return examples


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
