"""What the contract checks try the encoder with: timm's own test models, written on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaptkit.testing import Example
from adaptkit_timm.options import TimmOptions
from adaptkit_timm.stand_in import write_stand_in


def make_examples(directory: Path) -> list[Example]:
    """A transformer and a pyramid under `directory`, and pictures of two shapes."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 62, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise[:, :30])]
    examples = []
    for model in ("test_vit", "test_convnext"):
        path = write_stand_in(TimmOptions(path=".", model=model), directory / model).path
        variants: list[dict[str, Any]] = [{"path": path, "layer": -1}, {"path": path, "pad": "square"}]
        examples.append(Example({"path": path}, items=pictures, bad_items=[noise, "picture.png"], variants=variants))
    return examples
