"""What the contract checks try the encoder with: tiny towers, written on the spot."""

from __future__ import annotations

from pathlib import Path

from adaptkit_image.examples import tower_examples

from adaptkit.testing import Example
from adaptkit_open_clip.options import OpenClipOptions
from adaptkit_open_clip.stand_in import write_stand_in


def make_examples(directory: Path) -> list[Example]:
    """A transformer and a ResNet under `directory`, and pictures of two shapes."""
    models = {model: OpenClipOptions(path=".", model=model) for model in ("ViT-B-32", "RN50")}
    return tower_examples(directory, models, write_stand_in)
