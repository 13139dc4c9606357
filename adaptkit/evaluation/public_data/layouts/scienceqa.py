"""ScienceQA's release: problems by id, the ids of each split, and pictures in a folder a problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.release import Release
from adaptkit.files.folder import check

_TEXT = ("hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution")
SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Split of the hub's dataset, and its name in the release."""


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    columns = {"image": Image(), "question": text, "choices": List(text), "answer": Value("int8")}
    return Features({**columns, **dict.fromkeys(_TEXT, text)})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The problems of a split in their order; of ScienceQA-IMG those with a picture."""
    place, name = release.path / files[0], SPLITS[split]
    folder = files[0].rpartition("/")[0]
    problems = release.json(files[0], dict)
    ids = release.json(f"{folder}/pid_splits.json".lstrip("/"), dict)
    check(ids, str(release.path / folder / "pid_splits.json"), **{name: list})
    for key in map(str, ids[name]):
        where = f"{place}, {key}"
        if key not in problems:
            raise DataError(f"{place}: pid_splits.json lists {key!r}, which is missing")
        problem = problems[key]
        check(problem, where, question=str, choices=list, answer=int, image=(str, type(None)))
        check(problem, where, **dict.fromkeys(_TEXT, (str, type(None))))
        if not 0 <= problem["answer"] < len(problem["choices"]):
            raise DataError(
                f"{where}: the answer is {problem['answer']}, but there are {len(problem['choices'])} choices"
            )
        if problem["image"] is None and config == "ScienceQA-IMG":
            continue
        yield {
            "image": problem["image"] and _picture(release, problem["image"], key, name, where),
            "question": problem["question"],
            "choices": [str(choice) for choice in problem["choices"]],
            "answer": problem["answer"],
            **{column: problem[column] or "" for column in _TEXT},
        }


def _picture(release: Release, name: str, key: str, split: str, where: str) -> dict[str, Any]:
    own = f"{split}/{key}"
    return release.picture(name, where, (f"images/{own}", own, f"data/scienceqa/images/{own}", f"../images/{own}"))
