"""DocVQA: the average normalised Levenshtein similarity (ANLS), in the two ways that it is computed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import FileFolder, mean

_THRESHOLD = 0.5


def score(folder: FileFolder) -> dict[str, Any]:
    """By lmms-eval, which took the rule over from Qwen-VL, and by ST-VQA's evaluator."""
    rows = folder.rows("items.jsonl", answers=list, prediction=str)
    for where, row in rows:
        if not row["answers"] or not all(isinstance(answer, str) for answer in row["answers"]):
            raise DataError(f"{where}: 'answers' must be a list of texts, at least one")
    items = [(row["prediction"], row["answers"]) for _, row in rows]
    return {
        "anls_lmms_eval_qwen_vl": mean(max(qwen_vl_similarity(text, gold) for gold in golds) for text, golds in items),
        "anls_strip_lower_st_vqa": mean(max(st_vqa_similarity(text, gold) for gold in golds) for text, golds in items),
        "n": len(items),
    }


def qwen_vl_similarity(text: str, gold: str) -> float:
    """Compares texts with whitespace collapsed, but divides by the longer text as it was written."""
    plain = [" ".join(one.strip().lower().split()) for one in (text, gold)]
    return _similarity(plain[0], plain[1], max(len(text.upper()), len(gold.upper())))


def st_vqa_similarity(text: str, gold: str) -> float:
    """Compares texts in small letters, stripped."""
    text, gold = text.lower().strip(), gold.lower().strip()
    return _similarity(text, gold, max(len(text), len(gold)))


def _similarity(first: str, second: str, length: int) -> float:
    if not length:
        return 1.0
    if abs(len(first) - len(second)) > length - _THRESHOLD * length:
        return 0.0  # the distance is at least this
    similarity = 1 - edit_distance(first, second) / length
    return similarity if similarity >= _THRESHOLD else 0.0


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance by Myers' bit vectors, in Hyyrö's form: one column of the table is two integers."""
    if not first:
        return len(second)
    places: dict[str, int] = defaultdict(int)
    for i, character in enumerate(first):
        places[character] |= 1 << i
    mask, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    increases, decreases, distance = mask, 0, len(first)
    for character in second:
        equal = places.get(character, 0)
        diagonal = (((equal & increases) + increases) ^ increases) | equal
        right_up, right_down = decreases | ~(diagonal | increases) & mask, increases & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1) | 1, right_down << 1
        vertical = equal | decreases
        increases, decreases = (right_down | ~(vertical | right_up)) & mask, right_up & vertical & mask
    return distance
