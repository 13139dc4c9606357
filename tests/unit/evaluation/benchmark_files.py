"""A few made-up rows of every public benchmark, in the layouts in which their authors release them."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image
from pyarrow import parquet

from adaptkit.evaluation.official.mmlu import CATEGORY_OF
from adaptkit.evaluation.public_data.layouts.mme import TASKS as MME_TASKS

SIZES = ((24, 16), (16, 30), (20, 20))
"""Of the pictures in turn: wide, high, square."""


def write_all(data_dir: Path, mmlu_subjects: Iterable[str] = CATEGORY_OF, ceval_subjects: Iterable[str] = ()) -> Path:
    """Every release below one folder."""
    write_mme(data_dir)
    write_mmbench(data_dir)
    write_mmmu(data_dir)
    write_refcoco(data_dir)
    write_scienceqa(data_dir)
    write_vqa(data_dir)
    write_pope(data_dir)
    write_vsr(data_dir)
    write_mmlu(data_dir, mmlu_subjects)
    write_ceval(data_dir, ceval_subjects)
    write_librispeech(data_dir)
    return data_dir


def write_mme(data_dir: Path, tasks: Sequence[str] = MME_TASKS) -> None:
    """One picture a task, two questions a picture; scenes with folders of their own, as in the release."""
    for number, task in enumerate(tasks):
        nested = task in ("artwork", "celebrity", "landmark", "posters", "scene")
        folder = data_dir / "MME_Benchmark_release_version" / task
        pictures, questions = (folder / "images", folder / "questions_answers_YN") if nested else (folder, folder)
        picture(pictures / f"{number:04d}.jpg", number)
        lines = [
            f"Is there a {task}? Please answer yes or no.\tYes",
            f"Is there no {task}? Please answer yes or no.\tNo",
        ]
        text(questions / f"{number:04d}.txt", "\n".join(lines) + "\n")


def write_mmbench(data_dir: Path) -> None:
    """Two questions, the first in all its orders, the second with the first's picture by its index."""
    header = [
        "index",
        "question",
        "hint",
        "A",
        "B",
        "C",
        "D",
        "answer",
        "category",
        "image",
        "source",
        "l2-category",
        "comment",
        "split",
    ]
    for name, question in (
        ("MMBench_DEV_EN", "What is it?"),
        ("MMBench_DEV_CN", "这是什么？"),
        ("CCBench", "图中是什么？"),
    ):
        first = [
            0,
            question,
            "A hint",
            "cat",
            "dog",
            "",
            "",
            "A",
            "identity",
            encoded(0),
            "made",
            "coarse_perception",
            "",
            "dev",
        ]
        turned = [
            10**6,
            question,
            "A hint",
            "dog",
            "cat",
            "",
            "",
            "B",
            "identity",
            "0",
            "made",
            "coarse_perception",
            "",
            "dev",
        ]
        second = [
            1,
            question,
            "",
            "red",
            "blue",
            "green",
            "",
            "C",
            "colour",
            "0",
            "made",
            "attribute_reasoning",
            "",
            "dev",
        ]
        table(data_dir / "LMUData" / f"{name}.tsv", [header, first, turned, second], "\t")


def write_mmmu(data_dir: Path) -> None:
    """The hub's layout of MMMU/MMMU: a configuration a subject."""
    choice = {"question": "Which is it, <image 1> or <image 2>?", "options": "['circle', 'square']", "answer": "B"}
    opened = {"question": "How many are in <image 1>?", "options": "[]", "answer": "['3', 'three']"}
    for subject, rows in {
        "Art": [{**choice, "question_type": "multiple-choice", "image_2": embedded(1)}],
        "Math": [
            {**opened, "question_type": "open"},
            {**choice, "question_type": "multiple-choice", "image_2": embedded(2)},
        ],
    }.items():
        told = [
            {
                "id": f"validation_{subject}_{number}",
                "image_1": embedded(0),
                "explanation": "",
                "img_type": "['Diagrams']",
                "topic_difficulty": "Easy",
                "subfield": "Drawing",
                **row,
            }
            for number, row in enumerate(rows, start=1)
        ]
        write_hub(data_dir / "MMMU/MMMU" / subject / "validation-00000-of-00001.parquet", mmmu_features(), told)
    card = "".join(
        f"- config_name: {subject}\n  data_files:\n  - split: validation\n    path: {subject}/validation-*\n"
        for subject in ("Art", "Math")
    )
    text(data_dir / "MMMU/MMMU/README.md", f"---\nconfigs:\n{card}---\n")


def mmmu_features() -> Any:
    """Columns of MMMU."""
    from datasets import Features, Value
    from datasets import Image as Picture

    names = [
        "id",
        "question",
        "options",
        "explanation",
        "img_type",
        "answer",
        "topic_difficulty",
        "question_type",
        "subfield",
    ]
    pictures = {f"image_{number}": Picture() for number in range(1, 8)}
    return Features({**{name: Value("string") for name in names}, **pictures})


REFCOCO_SPLITS = {
    "refcoco": {"unc": ("train", "val", "testA", "testB"), "google": ("train", "val", "test")},
    "refcoco+": {"unc": ("train", "val", "testA", "testB")},
    "refcocog": {"umd": ("train", "val", "test")},
}


def write_refcoco(data_dir: Path) -> None:
    """One reference a split, with two expressions."""
    for name, by in REFCOCO_SPLITS.items():
        pictures, annotations = [], []
        for number, (width, height) in enumerate(SIZES):
            file = f"COCO_train2014_{number:012d}.jpg"
            picture(data_dir / "coco/train2014" / file, number)
            pictures.append({"id": number, "file_name": file, "width": width, "height": height})
            box = [2.0, 3.0, 8.0, 6.0]
            outline = [[2.0, 3.0, 10.0, 3.0, 10.0, 9.0]]
            annotations.append(
                {
                    "id": 100 + number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "segmentation": outline,
                    "iscrowd": 0,
                }
            )
        content = {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        text(data_dir / name / "instances.json", json.dumps(content))
        for author, splits in by.items():
            refs = [_reference(number, split) for number, split in enumerate(splits)]
            (data_dir / name / f"refs({author}).p").write_bytes(pickle.dumps(refs, protocol=2))


def _reference(number: int, split: str) -> dict[str, Any]:
    sentences = [
        {"sent_id": 10 * number + i, "sent": words, "raw": words, "tokens": words.split()}
        for i, words in enumerate(("man on the left", "the tall one"))
    ]
    which = number % len(SIZES)
    return {
        "ref_id": number,
        "ann_id": 100 + which,
        "category_id": 1,
        "image_id": which,
        "file_name": f"COCO_train2014_{which:012d}_{number}.jpg",
        "split": split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


def write_scienceqa(data_dir: Path) -> None:
    """Two problems of the test split, one with a picture, and one of the training split."""
    shared = {"task": "closed choice", "category": "Matter", "skill": "Weigh", "lecture": "", "solution": "Look."}
    problems = {
        "1": {"question": "Which is heavier?", "choices": ["iron", "air"], "answer": 0, "hint": "See.",
              "image": "image.png",
              "grade": "grade3", "subject": "natural science", "topic": "physics", "split": "test", **shared},
        "2": {"question": "Which is a verb?", "choices": ["run", "red", "he"], "answer": 0, "hint": "", "image": None,
              "grade": "grade8", "subject": "language science", "topic": "verbs", "split": "test", **shared},
        "3": {"question": "Which is north?", "choices": ["up", "down"], "answer": 0, "hint": "", "image": None,
              "grade": "grade1", "subject": "social science", "topic": "maps", "split": "train", **shared},
    }  # fmt: skip
    folder = data_dir / "ScienceQA"
    text(folder / "problems.json", json.dumps(problems))
    text(folder / "pid_splits.json", json.dumps({"train": ["3"], "val": [], "test": ["1", "2"]}))
    picture(folder / "images/test/1/image.png", 0)


def write_vqa(data_dir: Path) -> None:
    """VQAv2, TextVQA and DocVQA, two questions each."""
    _write_vqav2(data_dir)
    rows = [
        {"question": f"what is written {n}?", "image_id": f"0a{n}", "question_id": 34600 + n,
         "answers": ["stop"] * 6 + ["go"] * 4,
         "image_width": 1, "image_height": 1, "set_name": "val", "question_tokens": ["what"], "image_classes": ["Sign"],
         "flickr_original_url": "", "flickr_300k_url": ""}
        for n in range(2)
    ]  # fmt: skip
    text(data_dir / "textvqa/TextVQA_0.5.1_val.json", json.dumps({"data": rows}))
    pages = [
        {"questionId": 10 + n, "question": "What is the date?", "question_types": ["form"],
         "image": f"documents/p{n}.png",
         "docId": n, "ucsf_document_id": "x", "ucsf_document_page_no": "1", "data_split": "val",
         "answers": ["1 May", "May 1"]}
        for n in range(2)
    ]  # fmt: skip
    text(data_dir / "docvqa/val_v1.0_withQT.json", json.dumps({"dataset_name": "SP-DocVQA", "data": pages}))
    for number in range(2):
        picture(data_dir / f"textvqa/train_images/0a{number}.jpg", number)
        picture(data_dir / f"docvqa/documents/p{number}.png", number)


def _write_vqav2(data_dir: Path) -> None:
    people = [["cat"] * 10, ["a dog"] * 7 + ["dogs"] * 3]
    questions = [{"question_id": 420 + n, "image_id": 42 + n, "question": "What is it?"} for n in range(2)]
    annotations = [
        {
            "question_id": 420 + n,
            "image_id": 42 + n,
            "question_type": "what is",
            "answer_type": "other",
            "multiple_choice_answer": answers[0],
            "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(answers, 1)],
        }
        for n, answers in enumerate(people)
    ]
    folder = data_dir / "vqav2"
    text(folder / "v2_OpenEnded_mscoco_val2014_questions.json", json.dumps({"questions": questions}))
    text(folder / "v2_mscoco_val2014_annotations.json", json.dumps({"annotations": annotations}))
    for number in range(2):
        picture(data_dir / f"coco/val2014/COCO_val2014_{42 + number:012d}.jpg", number)


def write_pope(data_dir: Path) -> None:
    """Two questions a file, about one picture."""
    picture(data_dir / "coco/val2014/COCO_val2014_000000000042.jpg", 0)
    for kind in ("adversarial", "popular", "random"):
        rows = [
            {
                "question_id": n,
                "image": "COCO_val2014_000000000042.jpg",
                "text": f"Is there a {kind} thing?",
                "label": label,
            }
            for n, label in enumerate(("yes", "no"), start=1)
        ]
        jsonl(data_dir / f"pope/coco_pope_{kind}.json", rows)


def write_vsr(data_dir: Path) -> None:
    """Three captions a split, in the repository's layout."""
    picture(data_dir / "coco/trainval2017/000000000007.jpg", 0)
    for split in ("random", "zeroshot"):
        rows = [
            {"image": "000000000007.jpg", "image_link": "", "label": label,
             "caption": f"The cat is {relation} the mat.",
             "relation": relation, "subj": "cat", "obj": "mat", "annotator_id": 1}
            for relation, label in (("on", 1), ("left of", 0), ("on", 0))
        ]  # fmt: skip
        jsonl(data_dir / f"visual-spatial-reasoning/data/splits/{split}/test.jsonl", rows)


def write_mmlu(data_dir: Path, subjects: Iterable[str]) -> None:
    """Two questions a subject, one with cells that look like other than text."""
    for subject in subjects:
        rows = [["What, then?", "None", "NA", "1.0", "4", "D"], ["How many?", "1", "2", "3", "4", "B"]]
        table(data_dir / f"mmlu/data/test/{subject}_test.csv", rows)
        table(data_dir / f"mmlu/data/dev/{subject}_dev.csv", rows[1:])


def write_ceval(data_dir: Path, subjects: Iterable[str]) -> None:
    """Two questions a subject, and an example with its explanation."""
    header = ["id", "question", "A", "B", "C", "D", "answer"]
    for subject in subjects:
        rows = [[0, "下列哪一项？", "甲", "乙", "丙", "丁", "A"], [1, "多少？", "1", "2", "3", "4", "C"]]
        table(data_dir / f"ceval/val/{subject}_val.csv", [header, *rows])
        table(data_dir / f"ceval/dev/{subject}_dev.csv", [[*header, "explanation"], [*rows[0], "因为"]])


def write_librispeech(data_dir: Path) -> None:
    """Two recordings of half a second, in every part."""
    for part in ("test-clean", "test-other", "dev-clean", "dev-other"):
        folder = data_dir / "LibriSpeech" / part / "61/70968"
        text(folder / "61-70968.trans.txt", "61-70968-0000 HE BEGAN\n61-70968-0001 MISTER QUILTER SAYS\n")
        for number in range(2):
            tone = 0.1 * np.sin(np.arange(8_000) * (0.1 + number / 20))
            soundfile.write(folder / f"61-70968-{number:04d}.flac", tone, 16_000)


def picture(path: Path, number: int) -> None:
    """A picture of some colour and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn(number).save(path)


def drawn(number: int) -> Image.Image:
    """A picture in two colours."""
    width, height = SIZES[number % len(SIZES)]
    image = Image.new("RGB", (width, height), (20 * number % 255, 120, 60))
    image.paste((200, 30, 30), (0, 0, width // 2, height // 2))
    return image


def encoded(number: int) -> str:
    """A picture in base64."""
    return base64.b64encode(embedded(number)["bytes"]).decode()


def embedded(number: int) -> dict[str, Any]:
    """A picture as the hub's parquet holds it."""
    buffer = io.BytesIO()
    drawn(number).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_hub(path: Path, features: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Parquet, as `push_to_hub` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = features.arrow_schema
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def text(path: Path, content: str) -> None:
    """A text file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def table(path: Path, rows: Iterable[Sequence[Any]], delimiter: str = ",") -> None:
    """CSV or TSV."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    text(path, buffer.getvalue())
