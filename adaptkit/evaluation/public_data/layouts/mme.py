"""MME's release: a folder a task, with pictures and a text file for each that holds its two questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.official.mme import COGNITION, PERCEPTION
from adaptkit.evaluation.public_data.release import Release

TASKS = (*PERCEPTION, *COGNITION)
_PICTURES = (".png", ".jpg", ".jpeg")


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Features, Image, Value

    text = Value("string")
    return Features({"question_id": text, "image": Image(), "question": text, "answer": text, "category": text})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Two rows a picture, in the order of the text file."""
    missing = [task for task in TASKS if not (release.path / task).is_dir()]
    if missing:
        raise DataError(f"{release.path} lacks {', '.join(missing)}: MME's sums are over {len(TASKS)} tasks")
    for task in TASKS:
        names = release.names(task)
        nested = "questions_answers_YN" in names
        questions = f"{task}/questions_answers_YN" if nested else task
        pictures = f"{task}/images" if nested else task
        listed = {name.rpartition(".")[0]: name for name in release.names(pictures) if name.lower().endswith(_PICTURES)}
        texts = release.names(questions, ".txt")
        if not texts:
            raise DataError(f"{release.path / questions} has no text files with questions. {release.needs()}")
        for name in texts:
            stem = name.removesuffix(".txt")
            where = f"{release.path / questions / name}"
            picture = release.picture(f"{pictures}/{listed.get(stem, stem + '.png')}", where)
            for question, answer in _questions(release, f"{questions}/{name}"):
                yield {
                    "question_id": f"{task}/{listed[stem]}",
                    "image": picture,
                    "question": question,
                    "answer": answer,
                    "category": task,
                }


def _questions(release: Release, name: str) -> list[tuple[str, str]]:
    found = []
    for where, line in release.lines(name):
        if not line.strip():
            continue
        question, separator, answer = line.strip().rpartition("\t")
        if not separator or answer.strip().lower() not in ("yes", "no"):
            raise DataError(f"{where}: a question, a tab, and Yes or No are needed, not {line.strip()!r:.80}")
        found.append((question.strip(), answer.strip()))
    if len(found) != 2:
        raise DataError(f"{release.path / name}: two questions are needed, one a line; there are {len(found)}")
    return found
