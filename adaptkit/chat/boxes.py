"""Boxes as text: fractions of an item padded to a square, as the Inner-Adaptor release writes them.

An item of `width` by `height` pixels is centred on a square of the longer side, with integer borders; `[x1,y1,x2,y2]`
are fractions of that square.
"""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def pad_box(box: Sequence[float], width: float, height: float) -> Box:
    """Pixels of the item as fractions of the padded square, with the official rule's integer borders."""
    side = max(width, height)
    border_x, border_y = (side - width) // 2, (side - height) // 2
    x1, y1, x2, y2 = box
    return (x1 + border_x) / side, (y1 + border_y) / side, (x2 + border_x) / side, (y2 + border_y) / side


def unpad_box(box: Sequence[float], width: float, height: float) -> Box:
    """Fractions of the padded square as pixels of the item: the inverse of `pad_box`."""
    side = max(width, height)
    border_x, border_y = (side - width) // 2, (side - height) // 2
    x1, y1, x2, y2 = box
    return x1 * side - border_x, y1 * side - border_y, x2 * side - border_x, y2 * side - border_y


def format_box(box: Sequence[float], *, bins: int | None = None, decimals: int = 3) -> str:
    """A box as text, `[0.125,0.250,0.500,0.750]`.

    Args:
        box: Fractions.
        bins: Round to this many steps from 0 to 1, for tokenizers that have a token for each.
        decimals: Of each coordinate.
    """
    values = box if bins is None else [round(value * bins) / bins for value in box]
    return "[" + ",".join(f"{value:.{decimals}f}" for value in values) + "]"
