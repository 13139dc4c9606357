"""What the contract checks try the encoder with: tiny checkpoints of every family, written on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaptkit.testing import Example
from adaptkit_clip.options import ClipOptions
from adaptkit_clip.stand_in import write_stand_in


def make_examples(directory: Path) -> list[Example]:
    """A model of each family under `directory`, and pictures of two shapes."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 62, 3), dtype=np.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise[:, :9])]
    own_shape: dict[str, Any] = {"pad": "none", "feature_layer": -2}
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "clip": ({}, {"pad": "none"}),
        "siglip": ({"tiles": {"max": 2}}, {"pad": "stretch", "tiles": {"max": 2}}),
        "dinov2-reg": ({}, {"keep_registers": True}),
        "siglip2-naflex": (own_shape, {**own_shape, "max_num_patches": 9}),
    }
    examples = []
    for family, (options, variant) in cases.items():
        path = write_stand_in(ClipOptions(path=f"./{family}", **options), directory / family).path
        variants: list[dict[str, Any]] = [{"path": path, **options, "feature_layer": -1}, {"path": path, **variant}]
        bad_items = [noise, "picture.png"]
        examples.append(Example({"path": path, **options}, items=pictures, bad_items=bad_items, variants=variants))
    return examples
