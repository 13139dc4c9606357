"""Small releases of public question sets and recordings in their published layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

PROBLEM: dict[str, Any] = {
    "question": "Which is a mammal?",
    "choices": ["trout", "dolphin"],
    "answer": 1,
    "hint": "Look at the pond.",
    "image": "image.png",
    "lecture": "Mammals\nbreathe.",
    "solution": "It is the dolphin.",
    "grade": "grade3",
    "subject": "natural science",
    "topic": "biology",
}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_docvqa(folder: Path) -> Path:
    rows = [
        {"questionId": 1, "question": "What is the date?", "image": "documents/a_1.png", "answers": ["May 5", "5/5"]},
        {"questionId": 2, "question": "Who signs?", "image": "documents/a_1.png", "answers": ["Ann Lee"]},
    ]
    release = {"dataset_name": "SP-DocVQA", "dataset_split": "train", "data": rows}
    return write_json(folder / "train_v1.0_withQT.json", release)


def write_textvqa(folder: Path) -> Path:
    answers = ["nokia"] * 6 + ["Nokia"] * 4
    row = {"question_id": 34602, "image_id": "0054c91397f2fe05", "question": "what is the brand of phone?"}
    return write_json(folder / "TextVQA_0.5.1_train.json", {"data": [{**row, "answers": answers, "set_name": "train"}]})


def write_vqav2(folder: Path) -> tuple[Path, Path]:
    asked = [(9000, 9, "Is it raining?", "no"), (25000, 25, "How many?", "2"), (9001, 9, "What animal?", "cat")]
    questions = [{"question_id": key, "image_id": image, "question": text} for key, image, text, _ in asked]
    annotations = [
        {
            "question_id": key,
            "image_id": image,
            "multiple_choice_answer": answer,
            "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
        }
        for key, image, _, answer in reversed(asked)
    ]
    return (
        write_json(folder / "v2_OpenEnded_mscoco_train2014_questions.json", {"questions": questions}),
        write_json(folder / "v2_mscoco_train2014_annotations.json", {"annotations": annotations}),
    )


def write_vsr(folder: Path) -> Path:
    rows = [
        {"image": "000000000009.jpg", "caption": "The cat is on the mat.", "label": 1, "relation": "on"},
        {"image": "000000000025.jpg", "caption": "The mat is on the cat.", "label": 0, "relation": "on"},
    ]
    return write_text(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_scienceqa(folder: Path) -> Path:
    problems = {
        "7": {**PROBLEM, "split": "train"},
        "8": {**PROBLEM, "split": "train", "image": None, "hint": "", "lecture": "", "solution": ""},
        "9": {**PROBLEM, "split": "test"},
    }
    write_json(folder / "problems.json", problems)
    write_json(folder / "pid_splits.json", {"train": ["7", "8"], "val": [], "test": ["9"]})
    for split, key in (("train", "7"), ("test", "9")):
        (folder / "images" / split / key).mkdir(parents=True)
        Image.new("RGB", (40, 30), "blue").save(folder / "images" / split / key / "image.png")
    return folder


def write_cauldron(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def picture(color: str, kind: str) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), color).save(buffer, kind)
        return {"bytes": buffer.getvalue(), "path": None}

    def text(user: str, assistant: str) -> dict[str, str]:
        return {"user": user, "assistant": assistant, "source": "ai2d"}

    red, blue = picture("red", "PNG"), picture("blue", "JPEG")
    rows = [
        {"images": [red], "texts": [text("What colour?", "Red."), text("Sure?", "Yes.")]},
        {"images": [red, blue], "texts": [text("Are they alike?", "No.")]},
        {"images": [{"bytes": b"no picture", "path": None}], "texts": [text("What?", "Nothing.")]},
    ]
    (folder / "ai2d").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "ai2d" / "train-00000-of-00001.parquet")
    return folder


def write_librispeech(folder: Path, subset: str = "train-clean-100") -> Path:
    """One chapter of a subset, without its recordings; gives its folder."""
    place = folder / subset / "103" / "1240"
    write_text(place / "103-1240.trans.txt", "103-1240-0000 CHAPTER ONE\n103-1240-0001 MISSUS RACHEL\n")
    return place


def write_common_voice(folder: Path) -> Path:
    rows = ["client_id\tpath\tsentence\tup_votes", 'u1\tcommon_voice_en_1.mp3\tShe said "no".\t2',
            "u2\tcommon_voice_en_2.mp3\tA long one.\t3"]  # fmt: skip
    write_text(folder / "train.tsv", "\n".join(rows) + "\n")
    lengths = "clip\tduration[ms]\ncommon_voice_en_1.mp3\t2000\ncommon_voice_en_2.mp3\t45000\n"
    write_text(folder / "clip_durations.tsv", lengths)
    return folder
