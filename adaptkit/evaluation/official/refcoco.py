"""RefCOCO, RefCOCO+ and RefCOCOg: one box for an expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.boxes import BoxVerdict, score_boxes
from adaptkit.files.folder import FileFolder, Row, check_numbers, mean

_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
_MAX_SIDE = 10**6
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\s*\]")


def score(folder: FileFolder) -> dict[str, Any]:
    """By the script of the Inner-Adaptor release; by lmms-eval, where there are answers to its prompt."""
    gold = _gold(folder)
    items, num_unknown = [], 0
    for _, row in folder.rows("pred.jsonl", question_id=object, text=object):
        key = row["question_id"]
        truth = gold.get(key) if isinstance(key, str | int | float) else None
        num_unknown += truth is None
        verdict = _verdict(row["text"], truth)
        items.append({"question_id": key, "ious": [round(iou, 6) for iou in verdict.ious], "hit": verdict.hit})
    if num_unknown:
        folder.notes.append(f"{num_unknown} answers are to no question of gt.jsonl: misses, by the rule")
    scores: dict[str, Any] = {"official": precision([item["hit"] for item in items]), "items": items}
    if folder.has("lmms_eval_pred.jsonl"):
        scores["lmms_eval_on_lmms_eval_pred"] = _harness(folder)
    return scores


def precision(hits: Sequence[bool]) -> dict[str, float]:
    """Share of answers that hit, and how many did and did not."""
    return {"precision": sum(hits) / len(hits), "tp": sum(hits), "fp": len(hits) - sum(hits)}


def first_box(text: str) -> tuple[float, ...]:
    """The first `[a,b,c,d]` anywhere in a text; zeros without one, as in lmms-eval."""
    found = _BOX.search(text)
    return tuple(map(float, found.groups())) if found else (0.0, 0.0, 0.0, 0.0)


def _gold(folder: FileFolder) -> dict[Any, dict[str, Any]]:
    rows = folder.rows("gt.jsonl", sent_id=(int, str), bbox=list, width=(int, float), height=(int, float))
    for where, row in rows:
        check_numbers(row, where, "bbox", length=4)
        _check_size(where, row["width"], row["height"])
    return {row["sent_id"]: row for _, row in rows}


def _verdict(text: Any, truth: dict[str, Any] | None) -> BoxVerdict:
    if truth is None or not isinstance(text, str):
        return BoxVerdict(False)
    return score_boxes(text, truth["bbox"], truth["width"], truth["height"])


def _harness(folder: FileFolder) -> dict[str, float]:
    size = {"image_width": (int, float), "image_height": (int, float)}
    rows = folder.rows("lmms_eval_pred.jsonl", bbox_xywh=list, prediction=str, **size)
    pairs = [(_fractions(row), first_box(row[1]["prediction"])) for row in rows]
    ious = [_iou(gold, box) for gold, box in pairs]
    return {
        "IoU": mean(ious),
        **{f"ACC@{threshold}": mean(iou >= threshold for iou in ious) for threshold in _THRESHOLDS},
        "Center_ACC": mean(_has_centre(gold, box) for gold, box in pairs),
    }


def _fractions(located: Row) -> tuple[float, ...]:
    where, row = located
    check_numbers(row, where, "bbox_xywh", length=4)
    (x, y, w, h), width, height = row["bbox_xywh"], row["image_width"], row["image_height"]
    _check_size(where, width, height)
    return x / width, y / height, (x + w) / width, (y + h) / height


def _iou(gold: Sequence[float], box: Sequence[float]) -> float:
    """Reversed corners make the union smaller here, as in lmms-eval."""
    sides = [max(0, min(gold[i + 2], box[i + 2]) - max(gold[i], box[i])) for i in (0, 1)]
    intersection = sides[0] * sides[1]
    union = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (gold, box)) - intersection
    return intersection / union if union else 0.0


def _has_centre(gold: Sequence[float], box: Sequence[float]) -> bool:
    return all(gold[i] <= (box[i] + box[i + 2]) / 2 <= gold[i + 2] for i in (0, 1))


def _check_size(where: str, *sides: float) -> None:
    if not all(0 < side < _MAX_SIDE for side in sides):
        raise DataError(f"{where}: a width or height is not between 0 and {_MAX_SIDE:,}")
