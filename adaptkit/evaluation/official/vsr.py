"""VSR: whether a caption is true of a picture, by spatial relation."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptkit.errors import DataError, first_few
from adaptkit.files.folder import FileFolder, mean

META_CATEGORIES = """
Adjacency: adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, \
at the back of, ahead of, against, at the edge of
Directional: off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, across from, \
through, down from
Orientation: facing, facing away from, parallel to, perpendicular to
Projective: on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, \
in the middle of
Proximity: by, close to, near, far from, far away from
Topological: connected to, detached from, has as a part, part of, contains, within, at, on, in, with, surrounding, \
among, consists of, out of, between, inside, outside, touching
Unallocated: beyond, next to, opposite to, after, among, enclosed by
"""
"""The release's `rel_meta_category_dict.txt`."""

_WORDS = re.compile(r"[a-z]+|[01]\b")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def score(folder: FileFolder) -> dict[str, Any]:
    """By VSR's analysis scripts; an answer other than 0 and 1 is wrong."""
    rows = folder.rows("test.jsonl", relation=str, label=int)
    answers = _answers(folder)
    if len(answers) != len(rows):
        name = folder.path / "preds.txt"
        raise DataError(f"{name} has {len(answers):,} answers, but test.jsonl has {len(rows):,} rows: one line each")
    right = [int(answer == row["label"]) for answer, (_, row) in zip(answers, rows, strict=True)]
    relations = [row["relation"] for _, row in rows]
    categories = _categories(folder.lines("rel_meta_category_dict.txt"))
    unknown = sorted({relation for relation in relations if relation not in categories})
    if unknown:
        folder.notes.append(f"relations of no meta-category, which only by_relation counts: {first_few(unknown)}")
    return by_relation(relations, right, categories)


def by_relation(
    relations: Sequence[str], right: Sequence[int], categories: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Accuracy, and accuracy and number by relation and by meta-category.

    Args:
        relations: Of each caption.
        right: 1 for each right answer, 0 for each wrong one.
        categories: Meta-category of each relation; by default the release's.
    """
    if categories is None:
        categories = _categories((f"line {n}", line) for n, line in enumerate(META_CATEGORIES.strip().split("\n"), 1))
    pairs = list(zip(relations, right, strict=True))
    return {
        "accuracy": mean(right),
        "n": len(right),
        "by_relation": _by_name(pairs),
        "by_meta_category": _by_name((categories[relation], ok) for relation, ok in pairs if relation in categories),
    }


def answer_label(text: str) -> int | None:
    """1 or 0 by the first word that says true or false, yes or no; None of an answer that says neither."""
    word = next((word for word in _WORDS.findall(text.lower()) if word in (*_TRUE, *_FALSE)), None)
    return None if word is None else int(word in _TRUE)


def _answers(folder: FileFolder) -> list[int]:
    answers = []
    for where, line in folder.lines("preds.txt"):
        try:
            answers.append(int(line))
        except ValueError:
            raise DataError(f"{where}: 0 or 1 is needed, not {line.strip()!r:.40}") from None
    return answers


def _categories(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Meta-category of each relation; of one that two lines name, the last."""
    found = {}
    for where, line in lines:
        category, separator, relations = line.partition(":")
        if not separator:
            raise DataError(f"{where}: a line is `Category: relation, relation`")
        found.update({relation.strip(): category.strip() for relation in relations.split(",")})
    return found


def _by_name(items: Iterable[tuple[str, int]]) -> dict[str, list[float]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for name, right in items:
        groups[name].append(right)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return {name: [round(mean(right), 4), len(right)] for name, right in ordered}
