"""Scoring of grounding answers by the rule of the official RefCOCO evaluation of IAA.

An answer is one or more boxes, `[x1,y1,x2,y2]`, joined by `"; "`; coordinates are fractions of the item
padded to a square. The first box that meets the threshold makes the answer right; whatever cannot be read
makes it wrong, but a hit before the unreadable part stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptkit.chat.boxes import Box, parse_box, unpad_box

IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class BoxVerdict:
    """How an answer fared.

    Attributes:
        hit: Whether a box met the threshold.
        ious: IoU of each box looked at, up to the verdict.
        boxes: The boxes looked at, in fractions of the padded square.
    """

    hit: bool
    ious: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union; 0 where the boxes do not meet or their corners are reversed."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    if not (left < right and top < bottom):
        return 0.0
    intersection = (right - left) * (bottom - top)
    return intersection / (_area(first) + _area(second) - intersection)


def score_boxes(text: str, gold: Sequence[float], width: float, height: float, *, is_padded: bool = True) -> BoxVerdict:
    """Score one grounding answer.

    Args:
        text: What the model wrote.
        gold: The right box, `(x1, y1, x2, y2)` in pixels of the item.
        width: Of the item, in pixels.
        height: Of the item, in pixels.
        is_padded: Whether the answer is in fractions of the padded square; else of the item as it is.
    """
    ious: list[float] = []
    boxes: list[Box] = []
    for part in text.split("; "):
        box = parse_box(part)
        if box is None:
            break
        boxes.append(box)
        pixels = unpad_box(box, width, height) if is_padded else _scaled(box, width, height)
        ious.append(box_iou(pixels, gold))
        if ious[-1] >= IOU_THRESHOLD:
            return BoxVerdict(True, tuple(ious), tuple(boxes))
    return BoxVerdict(False, tuple(ious), tuple(boxes))


def precision(verdicts: Iterable[BoxVerdict]) -> float:
    """Share of answers that hit, 0 of none."""
    hits = [verdict.hit for verdict in verdicts]
    return sum(hits) / len(hits) if hits else 0.0


def _scaled(box: Box, width: float, height: float) -> Box:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
