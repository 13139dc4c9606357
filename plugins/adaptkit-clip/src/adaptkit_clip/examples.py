"""What the contract checks try the encoder with: tiny checkpoints of both families, written on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from adaptkit.testing import Example
from adaptkit_clip import ClipOptions
from adaptkit_clip.stand_in import write_stand_in


def make_examples(directory: Path) -> list[Example]:
    """A CLIP and a SigLIP model under `directory`, and pictures of two shapes."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise[:, :9])]
    examples = []
    for family in ("clip", "siglip"):
        path = write_stand_in(ClipOptions(path=f"./{family}"), directory / family).path
        variants = [{"path": path, "feature_layer": -1}, {"path": path, "pad": "none"}]
        examples.append(Example({"path": path}, items=pictures, bad_items=[noise, "picture.png"], variants=variants))
    return examples
