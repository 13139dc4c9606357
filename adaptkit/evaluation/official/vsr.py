"""VSR: whether a caption is true of a picture, by spatial relation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from adaptkit.errors import DataError, first_few
from adaptkit.files.folder import FileFolder, mean


def score(folder: FileFolder) -> dict[str, Any]:
    """By VSR's analysis scripts; an answer other than 0 and 1 is wrong."""
    rows = folder.rows("test.jsonl", relation=str, label=int)
    answers = _answers(folder)
    if len(answers) != len(rows):
        name = folder.path / "preds.txt"
        raise DataError(f"{name} has {len(answers):,} answers, but test.jsonl has {len(rows):,} rows: one line each")
    right = [int(answer == row["label"]) for answer, (_, row) in zip(answers, rows, strict=True)]
    relations = [row["relation"] for _, row in rows]
    categories = _categories(folder)
    unknown = sorted({relation for relation in relations if relation not in categories})
    if unknown:
        folder.notes.append(f"relations of no meta-category, which only by_relation counts: {first_few(unknown)}")
    in_category = [(categories[r], ok) for r, ok in zip(relations, right, strict=True) if r in categories]
    return {
        "accuracy": mean(right),
        "n": len(right),
        "by_relation": _by_name(zip(relations, right, strict=True)),
        "by_meta_category": _by_name(in_category),
    }


def _answers(folder: FileFolder) -> list[int]:
    answers = []
    for where, line in folder.lines("preds.txt"):
        try:
            answers.append(int(line))
        except ValueError:
            raise DataError(f"{where}: 0 or 1 is needed, not {line.strip()!r:.40}") from None
    return answers


def _categories(folder: FileFolder) -> dict[str, str]:
    """Meta-category of each relation; of one that two lines name, the last."""
    found = {}
    for where, line in folder.lines("rel_meta_category_dict.txt"):
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
