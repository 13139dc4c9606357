"""What the contract checks try the encoder with: timm's own test models, written on the spot."""

from __future__ import annotations

from pathlib import Path

from adaptkit_image.examples import tower_examples

from adaptkit.testing import Example
from adaptkit_timm.options import TimmOptions
from adaptkit_timm.stand_in import write_stand_in


def make_examples(directory: Path) -> list[Example]:
    """A transformer and a pyramid under `directory`, and pictures of two shapes."""
    models = {model: TimmOptions(path=".", model=model) for model in ("test_vit", "test_convnext")}
    return tower_examples(directory, models, write_stand_in)
