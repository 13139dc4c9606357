"""Readers of released files against the published layouts and the prompts of LaVIN's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptkit.errors import DataError
from adaptkit.releases.entries import Skipped
from adaptkit.releases.questions import VisualQuestion, read_docvqa, read_textvqa, read_vqa
from adaptkit.releases.scienceqa import check_prompt_format, lavin_prompt, read_captions, read_scienceqa
from adaptkit.releases.speech import read_common_voice, read_librispeech
from adaptkit.releases.vsr import read_vsr

ANNOTATORS = ["a cat", "cat", "cat"]


def write_vqa(folder: Path) -> tuple[Path, Path]:
    """Questions and annotations of VQA v2, the last question without an annotation."""
    questions = [{"question_id": 10 + i, "image_id": 7, "question": f"what {i}?"} for i in range(3)]
    annotations = [
        {
            "question_id": 10 + i,
            "image_id": 7,
            "multiple_choice_answer": "cat",
            "answers": [{"answer": answer, "answer_id": n} for n, answer in enumerate(ANNOTATORS)],
        }
        for i in range(2)
    ]
    first, second = (
        folder / "v2_OpenEnded_mscoco_train2014_questions.json",
        folder / "v2_mscoco_train2014_annotations.json",
    )
    first.write_text(json.dumps({"data_subtype": "train2014", "questions": questions}))
    second.write_text(json.dumps({"data_subtype": "train2014", "annotations": annotations}))
    return first, second


def test_scienceqa_is_asked_as_lavin_asks_it(shared: Path) -> None:
    folder = shared / "data" / "scores" / "scienceqa"
    problems = {p.id: p for p in read_scienceqa(folder, ["train", "val", "test"])}
    captions = read_captions(folder / "captions.json")
    cases = [json.loads(line) for line in (folder / "expected_prompts.jsonl").read_text().splitlines()]
    cases = [case for case in cases if "lavin_prompt" in case]
    assert len(cases) == 12
    for case in cases:
        problem = problems[case["qid"]]
        prompt, answer = lavin_prompt(problem, case["prompt_format"], captions.get(problem.id, ""))
        assert (f"{prompt}\nResponse:", answer) == (case["lavin_prompt"], case["lavin_answer"])


@pytest.mark.parametrize(
    ("prompt_format", "question", "answer"),
    [
        ("QCML-A", "Question: Q?\nContext: N/A\nOptions: (A) a (B) b\nBECAUSE: lec", "The answer is B."),
        (
            "QCLEM-AL",
            "Question: Q?\nContext: N/A\nBECAUSE: lec sol\nOptions: (A) a (B) b",
            "The answer is B. BECAUSE: sol",
        ),
        ("CQM-AE", "Context: N/A\nQuestion: Q?\nOptions: (A) a (B) b", "The answer is B. BECAUSE: lec"),
        ("QCEM-ELA", "Question: Q?\nContext: N/A\nBECAUSE: sol\nOptions: (A) a (B) b", "sol lec The answer is B."),
    ],
)  # fmt: skip
def test_other_formats_of_scienceqa(tmp_path: Path, prompt_format: str, question: str, answer: str) -> None:
    problem = {"question": "Q?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None}
    (tmp_path / "problems.json").write_text(json.dumps({"5": {**problem, "lecture": "lec", "solution": "sol"}}))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"train": ["5"]}))
    (found,) = read_scienceqa(tmp_path, ["train"])
    assert lavin_prompt(found, prompt_format) == (question, answer)


def test_a_prompt_format_that_does_not_exist_has_a_neighbour() -> None:
    with pytest.raises(DataError, match="QCM-ALE"):
        check_prompt_format("QCM-LAE")


def test_docvqa_is_read_as_published(shared: Path) -> None:
    (question,) = read_docvqa(shared / "data" / "formats" / "docvqa.json")
    assert question == VisualQuestion(
        49153, "What is the animal?", "../images/readpanda.jpg", ("red panda", "panda"), "red panda"
    )


def test_vqa_joins_questions_and_annotations(tmp_path: Path) -> None:
    questions, annotations = write_vqa(tmp_path)
    skipped = Skipped()
    found = list(read_vqa(questions, annotations, skipped))
    assert [(q.id, q.file, q.answer) for q in found] == [
        (10, "train2014/COCO_train2014_000000000007.jpg", "cat"),
        (11, "train2014/COCO_train2014_000000000007.jpg", "cat"),
    ]
    assert skipped == {"malformed questions": 1}
    assert "no answer to question 12" in skipped.first["malformed questions"]
    with pytest.raises(DataError, match="question 12"):
        list(read_vqa(questions, annotations))
    assert [q.answers for q in read_vqa(questions)] == [()] * 3


def test_textvqa_takes_the_most_frequent_answer(tmp_path: Path) -> None:
    row = {"question_id": 1, "image_id": "ab", "question": "?", "answers": ["b", "a", "a"], "set_name": "train"}
    (tmp_path / "t.json").write_text(json.dumps({"data": [row, {**row, "set_name": "test", "answers": []}]}))
    first, second = read_textvqa(tmp_path / "t.json")
    assert (first.answer, first.file, second.answer, second.file) == (
        "a", "train_images/ab.jpg", "", "test_images/ab.jpg",
    )  # fmt: skip


def test_vsr_is_read_as_published(shared: Path) -> None:
    statements = list(read_vsr(shared / "data" / "scores" / "vsr" / "test.jsonl"))
    assert (statements[0].id, statements[0].file) == ("test_0", "000000246736.jpg")
    assert (statements[0].text, statements[0].is_true) == ("The cat is on top of the keyboard.", True)
    assert statements[0].relation == "on top of"


def test_librispeech_is_read_by_chapter(tmp_path: Path) -> None:
    for subset, name in (("dev-clean", "84-121-0000"), ("train-clean-100", "103-1240-0001")):
        speaker, chapter, _ = name.split("-")
        place = tmp_path / subset / speaker / chapter
        place.mkdir(parents=True)
        (place / f"{speaker}-{chapter}.trans.txt").write_text(f"{name} CHAPTER ONE\nno id here\n")
    skipped = Skipped()
    found = list(read_librispeech(tmp_path, (), skipped))
    assert [(r.id, r.file, r.text, r.speaker) for r in found] == [
        ("84-121-0000", "dev-clean/84/121/84-121-0000.flac", "CHAPTER ONE", "84"),
        ("103-1240-0001", "train-clean-100/103/1240/103-1240-0001.flac", "CHAPTER ONE", "103"),
    ]
    assert skipped == {"malformed transcripts": 2}
    assert [r.id for r in read_librispeech(tmp_path, ("train-clean-100",), Skipped())] == ["103-1240-0001"]
    assert [r.file for r in read_librispeech(tmp_path / "dev-clean", (), Skipped())] == ["84/121/84-121-0000.flac"]
    with pytest.raises(DataError, match="train-clean-100"):
        list(read_librispeech(tmp_path, ("train-clean-10",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"trans\.txt"):
        list(read_librispeech(tmp_path / "empty"))


def test_common_voice_is_read_by_table(tmp_path: Path) -> None:
    table = 'client_id\tpath\tsentence\tup_votes\nx\ta.mp3\tShe said "no".\t2\ny\tb.mp3\n'
    (tmp_path / "train.tsv").write_text(table)
    (tmp_path / "clip_durations.tsv").write_text("clip\tduration[ms]\na.mp3\t2500\n")
    skipped = Skipped()
    (found,) = read_common_voice(tmp_path, "train", skipped)
    assert (found.id, found.file, found.text, found.seconds) == ("a", "clips/a.mp3", 'She said "no".', 2.5)
    assert skipped == {"malformed lines": 1}
    with pytest.raises(DataError, match="'train'"):
        list(read_common_voice(tmp_path, "trian"))


@pytest.mark.parametrize("reader", [read_docvqa, read_textvqa, read_vqa, read_vsr])
def test_a_file_of_another_layout_is_an_error_that_names_it(reader: object, tmp_path: Path) -> None:
    path = tmp_path / "v2_train2014_questions.json"
    for content in ("[1, 2]", '{"rows": []}', "", "<!doctype html>"):
        path.write_text(content)
        with pytest.raises(DataError, match="v2_train2014_questions"):
            list(reader(path))  # type: ignore[operator]
