"""Boxes as text: fractions of an item padded to a square, as the Inner-Adaptor release writes them.

An item of `width` by `height` pixels is centred on a square of the longer side, with integer borders; `[x1,y1,x2,y2]`
are fractions of that square.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]

_MAX_BOX_CHARS = 20_000
"""No box is longer; the parser is not handed more than this."""
_BRACKETS = re.compile(r"\[[\d.,\s]{7,100}\]")


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


def parse_box(text: str) -> Box | None:
    """Read four numbers as a Python literal: `[a,b,c,d]`, `(a,b,c,d)` or bare; more numbers are ignored.

    Returns:
        None where the text is anything else, or has words around the numbers.
    """
    if len(text) > _MAX_BOX_CHARS:
        return None
    try:
        values = ast.literal_eval(text)
        if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values[:4]):
            return None
        x1, y1, x2, y2 = map(float, values[:4])
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        return None
    return x1, y1, x2, y2


def find_boxes(text: str) -> list[Box]:
    """All boxes in a text, wherever they stand: brackets around four fractions, whose corners are in order."""
    read = filter(None, map(parse_box, _BRACKETS.findall(text)))
    return [box for box in read if 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1]
