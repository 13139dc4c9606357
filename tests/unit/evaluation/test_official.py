"""Official rules of benchmarks: exact on the reference scores, and at their edges on files made here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from adaptkit.errors import DataError
from adaptkit.evaluation.official import (
    BENCHMARKS,
    ceval,
    docvqa,
    letters,
    mmbench,
    mme,
    mmmu,
    refcoco,
    scienceqa,
    score_folder,
    vqa,
)
from adaptkit.files import folder

REFERENCES = {
    **{name: (name, "expected.json") for name in BENCHMARKS if not name.startswith(("mmbench", "ccbench"))},
    **{name: ("mmbench", f"{name}_expected.json") for name in mmbench.SETS},
}
OPTIONS = {"A": "a cat", "B": "a dog", "C": "two dogs", "D": "none of the above"}


def write(place: Path, files: dict[str, Any]) -> Path:
    """Files of text, of JSON (`.json`) and of JSON Lines (`.jsonl`)."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl") and isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        if name.endswith(".json") and not isinstance(content, str):
            path.write_text(json.dumps(content), encoding="utf-8")
    return place


def scores_of(name: str, place: Path, files: dict[str, Any]) -> dict[str, Any]:
    return score_folder(name, write(place, files))[0]


@pytest.mark.parametrize("name", REFERENCES)
def test_scores_of_the_reference_files_are_exact(name: str, shared: Path) -> None:
    place, expected_file = REFERENCES[name]
    scores, _ = score_folder(name, shared / "data" / "scores" / place)
    expected = json.loads((shared / "data" / "scores" / place / expected_file).read_text(encoding="utf-8"))
    scores = json.loads(json.dumps(scores))
    if name == "mmmu":  # the folder that answers lie in; the reference's had another name
        assert scores.pop("model") == "mmmu"
        del expected["model"]
    assert scores == expected


def test_all_sets_of_mmbench_in_one_folder(shared: Path) -> None:
    place = shared / "data" / "scores" / "mmbench"
    scores, _ = score_folder("mmbench", place)
    assert {name: score_folder(name, place)[0] for name in mmbench.SETS} == scores


def cases(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_read_as_in_the_reference_cases(shared: Path) -> None:
    data = shared / "data" / "scores"
    for case in cases(data / "mmbench" / "extract_cases.jsonl"):
        text, choices = case["prediction"], case["choices"]
        assert letters.vlmevalkit_letter(text, choices) == case["vlmevalkit"], text
        assert letters.harness_can_infer(text, choices) == case["lmms_eval_can_infer"], text
        assert letters.harness_extract(text, choices) == case["lmms_eval_mcq_extract"], text
    for case in cases(data / "mmmu" / "parse_cases.jsonl"):
        if case["kind"] == "open":
            values = mmmu.parse_open(case["response"])
            assert set(values) == set(case["parsed"]), case
            assert mmmu.is_right_open(case["answer"], values) == case["correct"], case
        else:
            assert mmmu.parse_choice(case["response"], case["all_choices"], case["index2ans"]) == case["parsed"], case
    for case in cases(data / "ceval" / "cot_extract_cases.jsonl"):
        assert ceval.extract_letter(case["output"]) == case["extracted"], case
    for case in cases(data / "scienceqa" / "real_outputs.jsonl"):
        assert scienceqa.lavin_index(case["text"], "abcde") == case["result"], case["question_id"]


MME = {
    "Yes": ("yes", "yes"),
    "no.": ("no", "no"),
    " yes": ("yes", "yes"),  # its first four characters
    "  yes": ("other", "yes"),
    "y": ("other", "yes"),
    "N": ("other", "no"),
    "Y.": ("other", "yes"),
    "None": ("no", "no"),
    "know": ("no", "no"),
    "Unknown": ("other", "other"),
    "not yes": ("no", "no"),
    "": ("other", "other"),
    "(No)": ("no", "no"),
    "x": ("other", "other"),
}


@pytest.mark.parametrize("answer", MME)
@pytest.mark.parametrize("end", ["\n", ""])
def test_mme_labels(answer: str, end: str) -> None:
    assert (mme.official_label(answer + end), mme.harness_label(answer + end)) == MME[answer]


def test_mme_pairs_lines_and_counts_absent_tasks_as_nothing(tmp_path: Path) -> None:
    lines = ["1.png\tq\tYes\tyes", "1.png\tq\tNo\tno", "2.png\tq\tYes\tyes", "2.png\tq\tNo\tyes"]
    text = "\ufeff" + "\r\n".join(lines)  # as Windows writes it; the last line has no end
    scores, notes = score_folder("mme", write(tmp_path, {"existence.txt": text}))
    expected = {"acc": 75.0, "acc_plus": 50.0, "score": 125.0, "images": 2, "other": 0}
    assert scores["official"] == {
        "tasks": {"existence": expected},
        "perception": 125.0,
        "cognition": 0,
        "total": 125.0,
    }
    assert scores["lmms_eval"] == {"perception": 125.0, "cognition": 0}
    assert "13 of 14" in notes[0]
    shuffled = "\n".join([lines[0], lines[3], lines[2], lines[1]])
    other = scores_of("mme", tmp_path, {"existence.txt": shuffled})
    assert other["official"]["tasks"]["existence"]["acc_plus"] == 50.0  # lines 3 and 4, of two pictures
    assert other["lmms_eval"]["perception"] == 125.0


GOLD = {"sent_id": 1, "bbox": [0, 0, 50, 100], "width": 100, "height": 200}  # the square adds 50 on either side
RIGHT = "[0.25,0,0.5,0.5]"


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        (RIGHT, True),
        ("(0.25, 0, 0.5, 0.5)", True),
        ("  0.25,0,0.5,0.5", True),
        ("[0.25,0,0.5,0.5,9,9]", True),
        (f"[0.9,0.9,1,1]; {RIGHT}", True),
        (f"{RIGHT}; not a box", True),
        (f"not a box; {RIGHT}", False),
        (f"[0.9,0.9,1,1];{RIGHT}", False),
        (f"{RIGHT}.", False),
        (f"The box is {RIGHT}", False),
        ("[0.5,0.5,0.25,0]", False),
        ("[0.25,0,0.5]", False),
        ("", False),
        (None, False),
        ("__import__('os').abort()", False),
        ("[0.25,0,0.5,1/2]", False),
        ("[" + "0.25,0,0.5,0.5," * 500 + "]", True),  # repeats itself up to the limit of tokens
        ("[" * 5000, False),
    ],
)
def test_refcoco_answers(text: Any, hit: bool, tmp_path: Path) -> None:
    answer = {"question_id": 1, "text": text}
    scores = scores_of("refcoco", tmp_path, {"gt.jsonl": [GOLD], "pred.jsonl": [answer]})
    assert scores["official"] == {"precision": float(hit), "tp": int(hit), "fp": int(not hit)}


def test_refcoco_counts_each_answer_and_unknown_ids_as_misses(tmp_path: Path) -> None:
    answers = [{"question_id": key, "text": RIGHT} for key in (1, 1, "1", 7, [1])]
    harness = {"image_width": 100, "image_height": 100, "bbox_xywh": [0, 0, 50, 50]}
    boxes = ["so [0, 0, 0.5, 0.5] or [0,0,1,1]", "no box", "[0,0,.5,.5]", "[0.5,0.5,0,0]"]
    files = {
        "gt.jsonl": [GOLD],
        "pred.jsonl": answers,
        "lmms_eval_pred.jsonl": [{**harness, "prediction": box} for box in boxes],
    }
    scores, notes = score_folder("refcoco", write(tmp_path, files))
    assert scores["official"] == {"precision": 0.4, "tp": 2, "fp": 3}
    assert [item["hit"] for item in scores["items"]] == [True, True, False, False, False]
    assert "3 answers" in notes[0]
    means = scores["lmms_eval_on_lmms_eval_pred"]
    assert means["IoU"] == 0.25
    assert means["ACC@0.9"] == 0.25
    assert means["Center_ACC"] == 1.0
    assert refcoco.first_box("[-1, 2.5,3 ,4]") == (0.0,) * 4
    assert refcoco.first_box("[-1, 2.5,3,4 ]") == (-1, 2.5, 3, 4)


def test_mmbench_needs_every_order_right(tmp_path: Path) -> None:
    header = "index\tquestion\thint\tA\tB\tC\tanswer\tcategory\tl2-category\r\n"
    rows = [
        "1\tq\t\tNone\t\t\tA\tc\tlogic_reasoning",  # text, whatever it looks like; an empty option ends the list
        "1000001\tq\t\tblue\tNone\t\tB\tc\tlogic_reasoning",
        '2\tq\t"a ""hint""\nof two lines"\tred\tblue\t\tB\td\tother',
        "1000002\tq\t\tblue\tred\t\tA\td\tother",
        "3\tq\t\tred\tblue\t\t\td\tother",  # no answer
    ]
    answers = [(1, "A"), (1000001, "no idea"), (1000001, "B."), ("2", "blue"), (1000002, None)]
    files = {
        "mmbench_en.tsv": header + "\r\n".join(rows) + "\r\n",
        "mmbench_en_predictions.jsonl": [{"index": index, "prediction": text} for index, text in answers],
    }
    scores, notes = score_folder("mmbench_en", write(tmp_path, files))
    exact = scores["vlmevalkit_exact_matching"]
    assert exact["extracted"] == {"1": "A", "1000001": "B", "2": "B", "1000002": None}
    assert exact["circular_hit"] == {"1": 1, "2": 0}
    assert exact["circular"] == {"Overall": 0.5, "LR": 1.0, "other": 0.0, "c": 1.0, "d": 0.0}
    assert exact["first_pass_only"]["Overall"] == 1.0
    assert scores["lmms_eval_static"]["l2_category"] == {"logic_reasoning": 1.0, "other": 0.0}
    assert "no answer, and are omitted" in notes[0]
    assert "later one" in notes[1]
    assert "1 of 5" in notes[2]


@pytest.mark.parametrize(
    ("answer", "exact", "static"),
    [
        ("B", "B", "B"),
        ("**B**", "B", "B"),
        ("b", None, None),
        ("选B", None, "B"),
        ("A B", None, "A"),
        ("A dog, so B", "B", "B"),  # the only option whose text occurs
        ("A bird, so B", None, "A"),
        ("B one two three four", None, "B"),  # not among the last four words
        ("B one two three", "B", "B"),
        ("Cannot determine the answer: B", "Z", "B"),
        ("Z", "Z", None),
        ("Answer is c, as two of these dogs are in the picture, I suppose", "C", "A"),
        ("", None, None),
    ],
)
def test_letters_of_mmbench(answer: str, exact: str | None, static: str | None) -> None:
    assert letters.vlmevalkit_letter(answer, OPTIONS) == exact
    assert letters.harness_letter(answer, OPTIONS) == static


def test_mmmu_counts_what_is_answered(tmp_path: Path) -> None:
    questions = {
        "validation_Art_1": {"question_type": "multiple-choice", "ground_truth": "B"},
        "validation_Art_Theory_1": {"question_type": "multiple-choice", "ground_truth": "A"},
        "validation_Music_1": {"question_type": "short-answer", "ground_truth": "['$MgS$', 'MgS']"},
        "validation_Music_2": {"question_type": "short-answer", "ground_truth": ["2,500", "x"]},
        "validation_Music_3": {"question_type": "short-answer", "ground_truth": "1"},
    }
    answers = {
        "validation_Art_1": "B",
        "validation_Art_Theory_1": "B",
        "validation_Music_1": "it is MgS",
        "validation_Music_2": "2500.001",
    }
    response = {"question_type": "multiple-choice", "answer": "B", "all_choices": ["A", "B"]}
    responses = [{**response, "index2ans": {"A": "x", "B": "y"}, "response": text} for text in ("(B).", "A", "?")]
    files = {"answer_dict_val.json": questions, "total_val_output.json": answers, "responses.jsonl": responses}
    scores, notes = score_folder("mmmu", write(tmp_path / "my_model", files))
    table = scores["official_main_eval_only"]
    assert scores["model"] == "my_model"
    assert table["Overall"] == {"num": 4, "acc": 0.75}
    assert table["Overall-Business"] == {"num": 0, "acc": 0}
    assert table["Art"]["acc"] == 1
    assert table["Art_Theory"]["acc"] == 0
    assert table["Music"] == {"num": 2, "acc": 1.0}
    assert "Biology" not in table
    assert "1 of 5" in notes[0]
    assert scores["responses"] == {"n": 3, "random_fallback": 1, "correct_without_fallback": 1}


def test_scienceqa_reads_letters_in_three_ways() -> None:
    read = {text: scienceqa.llava_index(text, "abc") for text in ("A", "C. x", "D", " A", "a", "A.x", "", "AB")}
    assert read == {"A": 0, "C. x": 2, "D": -1, " A": -1, "a": -1, "A.x": -1, "": -1, "AB": -1}
    assert scienceqa.llava_index("The answer is B", "abc") == -1  # a character must follow
    assert scienceqa.llava_index("The answer is B\n", "abc") == -1
    assert scienceqa.llava_index("The answer is B!", "abc") == 1
    twice = "The answer is B. No: The answer is C."
    assert scienceqa.llava_index(twice, "abc") == -1
    assert scienceqa.lavin_index(twice, "abc") == 1


def test_scienceqa_groups_and_missing_answers(tmp_path: Path) -> None:
    problem = {"choices": ["x", "y"], "hint": "", "image": None, "subject": "natural science", "topic": "biology"}
    problems = {
        "1": {**problem, "answer": 1, "grade": "grade6"},
        "2": {**problem, "answer": 0, "grade": "grade7", "hint": "h", "image": "image.png"},
        "3": {**problem, "answer": 0, "grade": "grade7"},
        "9": {**problem, "answer": 0, "grade": "grade1"},
    }
    answers = [("1", "A", ""), (1, "B", ""), ("2", "A", "<image>\nq"), ("9", "A", "<image>")]
    files = {
        "problems.json": problems,
        "pid_splits.json": {"train": ["9"], "test": ["1", "2", "3"]},
        "predictions.jsonl": [{"question_id": key, "text": text, "prompt": prompt} for key, text, prompt in answers],
    }
    scores, notes = score_folder("scienceqa", write(tmp_path, files))
    assert scores["llava_eval_science_qa"] == {
        "acc": 2 / 3 * 100,
        "correct": 2,
        "count": 3,
        "img_accuracy_2dp": "100.00",
        "results": {"1": 1, "2": 0, "3": -1},
    }
    groups = scores["scienceqa_evaluate_acc_on_those_results"]
    assert groups["acc_average"] == "66.67"
    assert groups["acc_grade_7_12"] == "50.00" == groups["acc_no_context"]
    assert "acc_social" not in groups
    assert groups["acc_biology"] == "66.67"
    assert scores["lavin_first_match_index_or_null"] == {"1": None, "2": None}
    assert "later one" in notes[0]
    assert "1 of 3" in notes[1]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat!", "cat"),
        ("ten an none", "10 0"),
        ("1,000", "1000"),
        ("a/b", "b"),  # the article goes, too
        ("3.5.", "3.5"),
        ("couldnt couldntve couldn'tve shes let's", "couldn't couldntve couldn't've shes let's"),
        ("somebody'd 'twas twas ow's'at", "somebodyd 'twas 'twas 'ow's'at"),
        ("x. " * 33, " ".join(["x"] * 32 + ["x."])),
    ],
)
def test_answers_to_vqa_are_normalised(text: str, normal: str) -> None:
    assert vqa.normalise(text) == normal


def test_vqa_normalises_where_people_disagree(tmp_path: Path) -> None:
    given = {1: ["yes"] * 10, 2: ["Two"] * 2 + ["2"] * 3 + ["three"] * 5}
    files = {
        "questions.json": {"questions": [{"question_id": key} for key in given]},
        "annotations.json": {
            "annotations": [
                {"question_id": key, "answers": [{"answer": a, "answer_id": i} for i, a in enumerate(answers)]}
                for key, answers in given.items()
            ]
        },
        "predictions.json": [{"question_id": 1, "answer": "Yes"}, {"question_id": 2, "answer": " two\n"}],
    }
    scores = scores_of("vqa", tmp_path, files)
    assert scores["vqa_official"] == {"overall": 50.0, "per_question": {"1": 0.0, "2": 100.0}}
    assert scores["textvqa_m4c"]["per_question"] == {"1": 100.0, "2": 100.0}
    write(tmp_path, {"predictions.json": [{"question_id": 1, "answer": "Yes"}]})
    with pytest.raises(DataError, match=r"predictions\.json.*no answer to 1 .*2"):
        score_folder("vqa", tmp_path)


def plain_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def test_edit_distances_are_those_of_the_table() -> None:
    draw = random.Random(0)
    for _ in range(300):
        first, second = ("".join(draw.choices("abß ", k=draw.randrange(12))) for _ in range(2))
        assert docvqa.edit_distance(first, second) == plain_distance(first, second), (first, second)


def test_docvqa_in_two_ways() -> None:
    assert docvqa.qwen_vl_similarity("", "") == 1.0 == docvqa.st_vqa_similarity(" ", "")
    assert docvqa.qwen_vl_similarity("  A  B ", "a b") == 1.0  # blanks are not compared
    assert docvqa.st_vqa_similarity("  A  B ", "a b") == 0.75
    assert docvqa.qwen_vl_similarity("abc", "abcdef") == 0.5  # not below the threshold
    assert docvqa.qwen_vl_similarity("ab", "abcdef") == 0.0
    assert docvqa.qwen_vl_similarity("kitten          ", "sitting") == 1 - 3 / 16
    assert docvqa.qwen_vl_similarity("a" * 200_000, "b") == 0.0  # at once


def test_vsr_by_relation_and_category(tmp_path: Path) -> None:
    rows = [{"relation": relation, "label": 1} for relation in ("on", "on", "among", "beyond")]
    files = {
        "test.jsonl": rows,
        "preds.txt": "1\r\n0\r\n 1 \r\n-1\r\n\r\n",
        "rel_meta_category_dict.txt": "Topological: on, among \nUnallocated: among\n",
    }
    scores, notes = score_folder("vsr", write(tmp_path, files))
    assert scores["accuracy"] == 0.5
    assert scores["n"] == 4
    assert scores["by_relation"] == {"on": [0.5, 2], "among": [1.0, 1], "beyond": [0.0, 1]}
    assert scores["by_meta_category"] == {"Topological": [0.5, 2], "Unallocated": [1.0, 1]}
    assert "beyond" in notes[0]


def test_mmlu_takes_the_first_of_equal_letters_and_leaves_subjects_out(tmp_path: Path) -> None:
    files = {
        "data/test/virology_test.csv": 'None,NA,1,2,3,A\n"a\nb",1,2,3,4,D\n',
        "data/test/anatomy_test.csv": "q,1,2,3,4,B\n",
        "data/test/sociology_test.csv": "q,1,2,3,4,B\n",
        "logprobs.jsonl": [
            {"subject": "virology", "row": 0, "logprobs": {"A": -1, "B": -1.0, "C": -2, "D": -3}},
            {"subject": "anatomy", "row": 0, "logprobs": {"D": 0, "B": -1, "C": -2, "A": -3}},
        ],
    }
    scores = scores_of("mmlu", tmp_path, files)
    assert scores["per_subject"] == {"anatomy": 0.0, "virology": 0.5}
    assert scores["average"] == 1 / 3
    assert scores["mean_of_subjects"] == 0.25
    assert scores["by_category"] == {"other (business, health, misc.)": 1 / 3}


def test_ceval_reads_letters_and_chains_of_thought(tmp_path: Path) -> None:
    header = "id,question,A,B,C,D,answer\n"
    texts = ["A", "所以答案是A。", "所以A。", "1. 甲", "a", "B"]  # the third pattern takes the full stop with it
    files = {
        "data/val/law_val.csv": "\ufeff" + header + "".join(f"{i},问,甲,乙,丙,丁,A\n" for i in range(len(texts))),
        "data/val/art_val.csv": header + "0,问,甲,乙,丙,丁,B\n",
        "subject_mapping.json": {"law": ["Law", "法", "Humanities"], "art": ["Art", "艺", "Humanities"]},
        "predictions.jsonl": [
            *({"subject": "law", "id": i, "prediction": text} for i, text in enumerate(texts)),
            {"subject": "art", "id": "0", "prediction": "B"},
        ],
    }
    scores = scores_of("ceval", tmp_path, files)
    assert scores["per_subject"] == {"art": 100.0, "law": 50.0}
    assert scores["average_over_subjects"] == 75.0 == scores["by_category_mean_of_subjects"]["Humanities"]


SENT = json.dumps(GOLD) + "\n"
WRONG: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "unknown benchmark": ("refcocco", {"x": ""}, ["refcocco", "'refcoco'"]),
    "empty folder": ("refcoco", {}, ["empty", "gt.jsonl", "pred.jsonl"]),
    "misnamed file": ("refcoco", {"gt.jsonl": [GOLD], "preds.jsonl": []}, ["pred.jsonl", "'preds.jsonl'"]),
    "misnamed task": ("mme", {"results/existance.txt": "", "results/OCR.txt": ""}, ["existance", "existence.txt"]),
    "malformed row": ("refcoco", {"gt.jsonl": SENT + "{", "pred.jsonl": ""}, ["gt.jsonl line 2", "JSON"]),
    "row of another kind": ("refcoco", {"gt.jsonl": SENT + "[1]"}, ["gt.jsonl line 2", "an object", "a list"]),
    "missing key": ("refcoco", {"gt.jsonl": [GOLD], "pred.jsonl": [{"question_id": 1}]}, ["line 1", "'text'"]),
    "wrong type": ("refcoco", {"gt.jsonl": [{**GOLD, "width": "9"}]}, ["line 1", "'width'", "a number", "text"]),
    "short box": ("refcoco", {"gt.jsonl": [{**GOLD, "bbox": [1, 2]}]}, ["line 1", "'bbox'", "4 finite numbers"]),
    "endless box": ("refcoco", {"gt.jsonl": [{**GOLD, "bbox": [0, 0, 1, float("nan")]}]}, ["line 1", "finite"]),
    "endless number": (
        "mmlu",
        {"logprobs.jsonl": [{"subject": "a", "row": 0, "logprobs": dict.fromkeys("ABCD", 10**400)}]}
        | {"data/test/a_test.csv": "q,1,2,3,4,A\n"},
        ["line 1", "'A'", "too large"],
    ),
    "no width": ("refcoco", {"gt.jsonl": [{**GOLD, "width": 0}]}, ["line 1", "width"]),
    "no rows": ("refcoco", {"gt.jsonl": "\n\n"}, ["gt.jsonl", "no rows"]),
    "not text": ("refcoco", {"gt.jsonl": b"\x1f\x8b0"}, ["gt.jsonl", "gzip"]),
    "not UTF-8": ("refcoco", {"gt.jsonl": SENT.encode() + b'{"a": "caf\xe9"}'}, ["gt.jsonl", "line 2", "UTF-8"]),
    "odd lines": ("mme", {"OCR.txt": "a\tq\tYes\tyes\n"}, ["OCR.txt", "1 lines", "two"]),
    "tab in an answer": ("mme", {"OCR.txt": "a\tq\tYes\tyes\tx\n"}, ["OCR.txt line 1", "5 cells"]),
    "no gold": ("mme", {"OCR.txt": "a\tq\tMaybe\tyes\n"}, ["OCR.txt line 1", "Maybe"]),
    "no task": ("mme", {"readme.md": "x"}, ["existence", "results/TASK.txt"]),
    "no set": ("mmbench", {"a": ""}, ["mmbench_en.tsv", "ccbench.tsv"]),
    "missing column": ("ccbench", {"ccbench.tsv": "index\tquestion\n1\tq\n"}, ["ccbench.tsv", "answer, category"]),
    "cells": (
        "ccbench",
        {"ccbench.tsv": "index\tquestion\tanswer\tcategory\tA\n1\tq\tA\n"},
        ["ccbench.tsv line 2", "3 cells", "5"],
    ),
    "index": (
        "ccbench",
        {"ccbench.tsv": "index\tquestion\tanswer\tcategory\tA\nx\tq\tA\tc\ta\n"},
        ["ccbench.tsv line 2", "whole number", "'x'"],
    ),
    "unknown index": (
        "ccbench",
        {
            "ccbench.tsv": "index\tquestion\tanswer\tcategory\tA\n1\tq\tA\tc\ta\n",
            "ccbench_predictions.jsonl": [{"index": 1, "prediction": "A"}, {"index": 2, "prediction": "A"}],
        },
        ["ccbench_predictions.jsonl line 2", "index 2"],
    ),
    "unknown id": (
        "mmmu",
        {"answer_dict_val.json": {"validation_Art_1": {}}, "total_val_output.json": {"validation_Art_2": "A"}},
        ["total_val_output.json", "'validation_Art_2'", "'validation_Art_1'"],
    ),
    "list for an object": ("mmmu", {"answer_dict_val.json": []}, ["answer_dict_val.json", "an object", "a list"]),
    "number of answers": ("vsr", {"test.jsonl": [{"relation": "on", "label": 1}], "preds.txt": "1\n1"}, ["2", "1 row"]),
    "no number": ("vsr", {"test.jsonl": [{"relation": "on", "label": 1}], "preds.txt": "yes"}, ["line 1", "'yes'"]),
    "answers": ("docvqa", {"items.jsonl": [{"answers": [], "prediction": ""}]}, ["line 1", "'answers'"]),
    "no subject": (
        "mmlu",
        {"data/test/a_test.csv": "q,1,2,3,4,A\n", "logprobs.jsonl": [{"subject": "a", "row": 0, "logprobs": {}}]},
        ["'A'"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_are_named(wrong: str, tmp_path: Path) -> None:
    name, files, words = WRONG[wrong]
    with pytest.raises(DataError) as error:
        scores_of(name, tmp_path, files)
    assert not [word for word in words if word not in str(error.value)], str(error.value)


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match=r"gt\.jsonl has .* bytes"):
        scores_of("refcoco", tmp_path, {"gt.jsonl": [GOLD]})
