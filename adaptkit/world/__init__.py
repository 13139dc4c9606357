"""A small world of coloured shapes: images, language, a decoder and an encoder, all of it shipped.

It lets everything run on a fresh machine without weights or data from elsewhere.
"""

from pathlib import Path
from typing import Literal

__all__ = ["model_path"]


def model_path(name: Literal["decoder", "encoder"]) -> Path:
    """The folder of a shipped model, for `from_pretrained`."""
    return Path(__file__).parent / "models" / name
