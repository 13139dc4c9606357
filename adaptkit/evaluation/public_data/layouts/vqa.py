"""The releases of VQAv2, TextVQA and DocVQA: questions and answers in JSON, and a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.release import Release, size_of
from adaptkit.files.folder import check

_COCO = {"validation": "val2014", "test": "test2015", "testdev": "test2015"}
_DOCVQA_PLACES = ("", "val", "test", "documents", "images", "spdocvqa_images", "../spdocvqa_images")
_TEXTVQA_PLACES = ("train_images", "test_images", "train_val_images/train_images", "images")


def features(config: str) -> Any:
    """Columns of the hub's datasets; `config` is `vqav2`, `textvqa` or `DocVQA`."""
    from datasets import Features, Image, List, Value

    text, texts, number = Value("string"), List(Value("string")), Value("int32")
    person = {"answer": text, "answer_confidence": text, "answer_id": Value("int64")}
    question: dict[str, Any] = {"question": text, "image": Image()}
    columns: dict[str, dict[str, Any]] = {
        "vqav2": {
            "question_type": text,
            "multiple_choice_answer": text,
            "answers": List(person),
            "image_id": Value("int64"),
            "answer_type": text,
            "question_id": Value("int64"),
        },
        "textvqa": {
            "image_id": text,
            "question_id": number,
            "question_tokens": texts,
            "image_width": number,
            "image_height": number,
            "flickr_original_url": text,
            "flickr_300k_url": text,
            "answers": texts,
            "image_classes": texts,
            "set_name": text,
            "ocr_tokens": texts,
        },
        "DocVQA": {
            "questionId": text,
            "question_types": texts,
            "docId": Value("int64"),
            "ucsf_document_id": text,
            "ucsf_document_page_no": text,
            "answers": texts,
            "data_split": text,
        },
    }
    return Features({**question, **columns[config]})


def vqav2_rows(release: Release, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Questions with the ten answers, where they are published."""
    place = release.path / files[0]
    answers = {}
    if split == "validation":
        name = files[0].replace("OpenEnded_mscoco", "mscoco").replace("_questions", "_annotations")
        for number, row in enumerate(_list(release, name, "annotations")):
            where = f"{release.path / name}, annotation {number}"
            check(row, where, question_id=int, answers=list)
            for answer in row["answers"]:
                check(answer, f"{where}, answers", answer=str)
            answers[row["question_id"]] = row
    for number, row in enumerate(_list(release, files[0], "questions")):
        where = f"{place}, question {number}"
        check(row, where, question_id=int, image_id=int, question=str)
        told = answers.get(row["question_id"])
        if split == "validation" and told is None:
            raise DataError(f"{where}: the annotations have no answers to question {row['question_id']}")
        folder = _COCO[split]
        name = f"COCO_{folder}_{row['image_id']:012d}.jpg"
        kept = {key: (told or {}).get(key) for key in ("question_type", "multiple_choice_answer", "answer_type")}
        people = None if told is None else [_person(answer) for answer in told["answers"]]
        picture = release.picture(name, where, (folder, "images", f"images/{folder}"))
        ids = {key: row[key] for key in ("question_id", "image_id", "question")}
        yield {**ids, **kept, "image": picture, "answers": people}


def textvqa_rows(release: Release, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Questions with the ten answers, where they are published; OCR tokens from Rosetta's file where it is there."""
    tokens = _ocr_tokens(release, files[0])
    for number, row in enumerate(_list(release, files[0], "data")):
        where = f"{release.path / files[0]}, entry {number}"
        check(row, where, question_id=int, image_id=str, question=str)
        picture = release.picture([f"{row['image_id']}.{end}" for end in ("jpg", "png")], where, _TEXTVQA_PLACES)
        width, height = size_of(Path(picture["path"]), where)
        yield {
            "image": picture,
            "image_width": row.get("image_width", width),
            "image_height": row.get("image_height", height),
            **{key: row[key] for key in ("question_id", "image_id", "question")},
            **{key: row.get(key, "") for key in ("flickr_original_url", "flickr_300k_url", "set_name")},
            **{key: row.get(key, []) for key in ("question_tokens", "answers", "image_classes")},
            "ocr_tokens": tokens.get(row["image_id"], []),
        }


def docvqa_rows(release: Release, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Questions about pages of documents."""
    for number, row in enumerate(_list(release, files[0], "data")):
        where = f"{release.path / files[0]}, entry {number}"
        check(row, where, questionId=(int, str), question=str, image=str)
        if split == "validation":
            check(row, where, answers=list)
        kept = {key: row.get(key) for key in ("question_types", "ucsf_document_id", "data_split", "docId", "answers")}
        page = row.get("ucsf_document_page_no")
        yield {
            **kept,
            "questionId": str(row["questionId"]),
            "question": row["question"],
            "ucsf_document_page_no": None if page is None else str(page),
            "image": release.picture((row["image"], row["image"].rpartition("/")[2]), where, _DOCVQA_PLACES),
        }


_ROWS = {"vqav2": vqav2_rows, "textvqa": textvqa_rows, "DocVQA": docvqa_rows}


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a split of one of the three."""
    return _ROWS[config](release, split, files)


def _list(release: Release, name: str, key: str) -> list[Any]:
    content = release.json(name, dict)
    check(content, str(release.path / name), **{key: list})
    return content[key]  # type: ignore[no-any-return]


def _person(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: answer.get(key) for key in ("answer", "answer_confidence", "answer_id")}


def _ocr_tokens(release: Release, questions: str) -> dict[str, list[str]]:
    name = questions.replace("TextVQA_0.5.1", "TextVQA_Rosetta_OCR_v0.2")
    if name == questions or not release.has(name):
        return {}
    return {str(row.get("image_id")): row.get("ocr_tokens") or [] for row in _list(release, name, "data")}
