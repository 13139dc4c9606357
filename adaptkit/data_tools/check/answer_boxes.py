"""Boxes in answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_BOX = rf"\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*\]"
_BOXES = re.compile(rf"\s*{_BOX}(?:;\s*{_BOX})*\s*")
_VALUES = re.compile(_NUMBER)


def box_problems(answer: str) -> Iterator[tuple[str, str]]:
    """Kind and description of what is wrong with the boxes of an answer that consists of boxes alone.

    They are read as fractions of the padded item, `[x1,y1,x2,y2]`, several joined by `"; "`; each kind comes once.
    """
    if "[" not in answer or _BOXES.fullmatch(answer) is None:
        return
    values = [float(value) for value in _VALUES.findall(answer)]
    found: dict[str, str] = {}
    for x1, y1, x2, y2 in zip(*[iter(values)] * 4):
        text = f"[{x1:g},{y1:g},{x2:g},{y2:g}]"
        if not all(0 <= value <= 1 for value in (x1, y1, x2, y2)):
            found.setdefault("box_range", f"{text} has coordinates outside 0 to 1; boxes are fractions")
        if x1 > x2 or y1 > y2:
            found.setdefault("box_order", f"{text} has reversed corners: boxes are [x1,y1,x2,y2]")
        elif x1 == x2 or y1 == y2:
            found.setdefault("box_area", f"{text} has no area")
    yield from found.items()
