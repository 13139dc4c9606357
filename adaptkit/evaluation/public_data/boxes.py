"""Boxes in answers, brought from the padded square to the picture as it is, which the harnesses score."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from adaptkit.chat.boxes import parse_box, unpad_box

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FOUR = rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}"
_BRACKETS = re.compile(rf"(?<=\[){_FOUR}(?=\s*[,\]])")
_PART = re.compile(rf"(?<=\(){_FOUR}|^{_FOUR}")
_SEPARATOR = "; "
_DECIMALS = 10
"""Enough that a box which was right stays right."""


def restore_boxes(text: str, size: Sequence[int]) -> str:
    """An answer with each box in fractions of the picture in place of fractions of the padded square.

    What is in brackets counts wherever it stands; four numbers in parentheses or without any count where a part of the
    answer, up to `"; "`, is nothing else. All else stays as it is, and so does the answer to a square picture.

    Args:
        text: What the model wrote.
        size: Width and height of the picture in pixels.
    """
    width, height = size
    if width == height:
        return text
    return _SEPARATOR.join(_restore(part, width, height) for part in text.split(_SEPARATOR))


def _restore(part: str, width: int, height: int) -> str:
    def restored(found: re.Match[str]) -> str:
        x1, y1, x2, y2 = map(float, found[0].split(","))
        left, top, right, bottom = unpad_box((x1, y1, x2, y2), width, height)
        values = (left / width, top / height, right / width, bottom / height)
        return ",".join(map(_written, values)) if all(map(math.isfinite, values)) else found[0]

    if _BRACKETS.search(part):
        return _BRACKETS.sub(restored, part)
    return _PART.sub(restored, part, count=1) if parse_box(part) is not None else part


def _written(value: float) -> str:
    """Without an exponent, which lmms-eval does not read."""
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
