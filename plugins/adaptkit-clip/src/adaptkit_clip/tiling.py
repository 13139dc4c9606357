"""Several squares of one picture: an overview, and the squares of the grid that fits it best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

Grid = tuple[int, int]


def choose_grid(size: tuple[int, int], side: int, grids: Sequence[Grid]) -> Grid:
    """The grid that keeps most of a picture's pixels, and of those that keep as many the one with least room left.

    Args:
        size: Width and height of the picture.
        side: Of a square, in pixels.
        grids: `(rows, columns)` each; the first wins where several fit as well.
    """

    def merit(grid: Grid) -> tuple[int, int]:
        height, width = grid[0] * side, grid[1] * side
        scale = min(width / size[0], height / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - height * width

    return max(grids, key=merit)


def cut(
    picture: Image.Image, grid: Grid, side: int, *, color: tuple[int, int, int] | None, resample: Image.Resampling
) -> list[Image.Image]:
    """Squares of a grid in reading order.

    Args:
        picture: RGB.
        grid: Rows and columns.
        side: Of a square, in pixels.
        color: Of the room that a picture of another shape leaves around it; None stretches it instead.
        resample: How it is resized.
    """
    rows, columns = grid
    canvas = _fit(picture, (columns * side, rows * side), color, resample)
    corners = [(column * side, row * side) for row in range(rows) for column in range(columns)]
    return [canvas.crop((left, top, left + side, top + side)) for left, top in corners]


def _fit(
    picture: Image.Image, size: tuple[int, int], color: tuple[int, int, int] | None, resample: Image.Resampling
) -> Image.Image:
    if color is None:
        return picture.resize(size, resample)
    scale = min(size[0] / picture.width, size[1] / picture.height)
    # The longer side fills the canvas; rounding up keeps a strip of one pixel
    width, height = (min(math.ceil(length * scale), room) for length, room in zip(picture.size, size, strict=True))
    canvas = Image.new("RGB", size, color)
    canvas.paste(picture.resize((width, height), resample), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas
