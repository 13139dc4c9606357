"""POPE's release: a file of questions for each way of choosing objects, about pictures of COCO's validation set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.release import Release
from adaptkit.files.folder import check

KINDS = ("adversarial", "popular", "random")
PLACES = ("val2014", "images", "images/val2014", "../val2014")


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Features, Image, Value

    names = ("id", "question_id", "question", "answer", "image_source", "category")
    return Features({**{name: Value("string") for name in names}, "image": Image()})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The questions of one file, or, for the split `test`, of all three."""
    missing = [kind for kind in KINDS if split == "test" and not any(name.endswith(f"_{kind}.json") for name in files)]
    if missing:
        raise DataError(f"{release.path}: coco_pope_{missing[0]}.json is missing; the split test is all three files")
    number = 0
    for name in files:
        category = name.removesuffix(".json").rpartition("_")[2]
        for where, row in release.rows(name):
            check(row, where, image=str, text=str, label=str, question_id=(int, str))
            if row["label"] not in ("yes", "no"):
                raise DataError(f"{where}: the label must be yes or no, not {row['label']!r:.40}")
            yield {
                "id": str(number),
                "question_id": str(row["question_id"]),
                "question": row["text"],
                "answer": row["label"],
                "image_source": row["image"].rpartition(".")[0],
                "image": release.picture(row["image"], where, PLACES),
                "category": category,
            }
            number += 1
