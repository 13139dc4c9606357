"""Questions about pictures with short answers: DocVQA, TextVQA and VQA v2."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import check
from adaptkit.files.json_stream import Progress, read_lists
from adaptkit.releases.entries import Skipped, read_entries

_SUBSET = re.compile(r"(?:train|val|test)\d{4}")


@dataclass(frozen=True)
class VisualQuestion:
    """A question about a picture.

    Attributes:
        id: Of the question, in the release.
        question: Its text.
        file: The picture's path in the release.
        answers: As annotators wrote them; none where the release keeps them secret.
        answer: The one that the release, or else most annotators, chose; empty without answers.
    """

    id: int | str
    question: str
    file: str
    answers: tuple[str, ...] = ()
    answer: str = ""


def read_docvqa(
    path: Path, skipped: Skipped | None = None, progress: Progress | None = None
) -> Iterator[VisualQuestion]:
    """Questions of DocVQA: `train_v1.0_withQT.json`, `val_v1.0_withQT.json` or a file of their layout.

    Raises:
        DataError: The file is missing or malformed; or, where nothing counts them, a question is.
    """
    entries = _located(path, "data", "question", progress)
    yield from read_entries(entries, _read_docvqa, "questions", skipped)


def _read_docvqa(entry: Any, where: str) -> VisualQuestion:
    check(entry, where, questionId=(int, str), question=str, image=str)
    answers = _texts(entry.get("answers") or [], where)
    return VisualQuestion(
        entry["questionId"], entry["question"], entry["image"], answers, answers[0] if answers else ""
    )


def read_textvqa(
    path: Path, skipped: Skipped | None = None, progress: Progress | None = None
) -> Iterator[VisualQuestion]:
    """Questions of TextVQA: `TextVQA_0.5.1_train.json` or a file of its layout.

    Pictures lie in `train_images`, those of the test split in `test_images`.

    Raises:
        DataError: The file is missing or malformed; or, where nothing counts them, a question is.
    """
    yield from read_entries(_located(path, "data", "question", progress), _read_textvqa, "questions", skipped)


def _read_textvqa(entry: Any, where: str) -> VisualQuestion:
    check(entry, where, question_id=(int, str), question=str, image_id=str)
    answers = _texts(entry.get("answers") or [], where)
    folder = "test_images" if entry.get("set_name") == "test" else "train_images"
    file = f"{folder}/{entry['image_id']}.jpg"
    return VisualQuestion(entry["question_id"], entry["question"], file, answers, most_frequent(answers))


def read_vqa(
    questions: Path, annotations: Path | None = None, skipped: Skipped | None = None, progress: Progress | None = None
) -> Iterator[VisualQuestion]:
    """Questions of VQA v2, in the order of their file; pictures lie in COCO's folders.

    Args:
        questions: `v2_OpenEnded_mscoco_train2014_questions.json` or a file of its layout.
        annotations: `v2_mscoco_train2014_annotations.json`; questions without an annotation are malformed. None: the
            questions alone.
        skipped: Counts malformed entries; None: they are errors.
        progress: Called with the progress.

    Raises:
        DataError: A file is missing or malformed, or does not say which of COCO's folders has the pictures.
    """
    named = _SUBSET.search(questions.name)
    if named is None:
        raise DataError(f"{questions}: its name should say where the pictures are, as in ..._train2014_questions.json")
    subset = named[0]
    answers: dict[Any, tuple[tuple[str, ...], str]] = {}
    if annotations is not None:
        located = _located(annotations, "annotations", "annotation", progress)
        answers.update(read_entries(located, _read_annotation, "annotations", skipped))

    def read(entry: Any, where: str) -> VisualQuestion:
        check(entry, where, question_id=(int, str), question=str, image_id=int)
        key = entry["question_id"]
        if annotations is not None and key not in answers:
            raise DataError(f"{where}: {annotations} has no answer to question {key}")
        file = f"{subset}/COCO_{subset}_{entry['image_id']:012d}.jpg"
        return VisualQuestion(key, entry["question"], file, *answers.get(key, ()))

    yield from read_entries(_located(questions, "questions", "question", progress), read, "questions", skipped)


def _read_annotation(entry: Any, where: str) -> tuple[Any, tuple[tuple[str, ...], str]]:
    check(entry, where, question_id=(int, str), answers=list)
    for answer in entry["answers"]:
        check(answer, where, answer=str)
    answers = tuple(answer["answer"] for answer in entry["answers"])
    chosen = entry.get("multiple_choice_answer")
    return entry["question_id"], (answers, chosen if isinstance(chosen, str) else most_frequent(answers))


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most people gave, the first of equally frequent ones; empty without any."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def _texts(answers: Any, where: str) -> tuple[str, ...]:
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{where}: 'answers' must be a list of texts")
    return tuple(answers)


def _located(path: Path, key: str, noun: str, progress: Progress | None) -> Iterator[tuple[str, Any]]:
    for number, (_, entry) in enumerate(read_lists(path, (key,), progress), start=1):
        yield f"{path}, {noun} {number}", entry
