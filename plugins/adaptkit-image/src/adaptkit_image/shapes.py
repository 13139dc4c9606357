"""Making pictures square, for encoders: within the limits of memory, however elongated they are."""

from __future__ import annotations

from typing import Any

from PIL import Image

from adaptkit.errors import DataError

MAX_MADE_PIXELS = 200_000_000
"""Most pixels of a picture that preprocessing may make on the way."""


def as_rgb(item: Any, encoder: str) -> Image.Image:
    """A loaded picture in RGB.

    Raises:
        DataError: It is not a picture.
    """
    if not isinstance(item, Image.Image):
        raise DataError(f"the encoder {encoder!r} takes loaded pictures (Pillow images), got {type(item).__name__}.")
    return item if item.mode == "RGB" else item.convert("RGB")


def mean_color(means: Any) -> tuple[int, int, int]:
    """The colour that normalises to about zero, from means in 0..1."""
    red, green, blue = (int(255 * value) for value in means)
    return red, green, blue


def pad_to_square(picture: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Centre a picture on a square; an odd remainder goes to the right and bottom.

    Raises:
        DataError: The square would be enormous.
    """
    width, height = picture.size
    side = max(width, height)
    if width == height:
        return picture
    if side * side > MAX_MADE_PIXELS:
        raise DataError(
            f"a picture of {width} by {height} pixels would be padded to {side} by {side}: scale it so that "
            f"its longer side is at most {int(MAX_MADE_PIXELS**0.5)} pixels."
        )
    square = Image.new("RGB", (side, side), color)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def check_strip(picture: Image.Image, side: int) -> None:
    """Refuse a picture that fits in no memory once its shorter edge is resized to `side`.

    Raises:
        DataError: It does.
    """
    width, height = picture.size
    longer = max(width, height) * side // min(width, height)
    if longer * side > MAX_MADE_PIXELS:
        raise DataError(
            f"a picture of {width} by {height} pixels would be resized to {side} by {longer}: crop it to a less "
            "elongated one."
        )
