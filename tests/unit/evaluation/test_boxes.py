"""The official RefCOCO rule, against its reference scores and at its edges."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from types import ModuleType

import pytest

from adaptkit.chat import boxes as chat_boxes
from adaptkit.chat.boxes import find_boxes, format_box, pad_box, parse_box, unpad_box
from adaptkit.evaluation import boxes as evaluation_boxes
from adaptkit.evaluation.boxes import BoxVerdict, box_iou, precision, score_boxes


def test_agrees_with_the_official_script(shared: Path) -> None:
    folder = shared / "data" / "scores" / "refcoco"
    read = lambda name: [json.loads(line) for line in (folder / name).read_text().splitlines()]  # noqa: E731
    truth = {row["sent_id"]: row for row in read("gt.jsonl")}
    expected = json.loads((folder / "expected.json").read_text())
    verdicts = {}
    for row in read("pred.jsonl"):
        gold = truth.get(row["question_id"])
        verdicts[row["question_id"]] = (
            BoxVerdict(False) if gold is None else score_boxes(row["text"], gold["bbox"], gold["width"], gold["height"])
        )
    for item in expected["items"]:
        verdict = verdicts[item["question_id"]]
        assert verdict.hit == item["hit"], item
        assert verdict.ious == pytest.approx(item["ious"], abs=1e-6), item  # the reference has six digits
    assert precision(verdicts.values()) == expected["official"]["precision"]
    assert sum(v.hit for v in verdicts.values()) == expected["official"]["tp"]


@pytest.mark.parametrize("text", ["[0.1,0.2,0.3,0.4]", "(0.1, 0.2, 0.3, 0.4)", " 0.1,0.2,0.3,0.4", "[.1,.2,.3,.4,9]"])
def test_lists_tuples_and_bare_numbers_are_boxes(text: str) -> None:
    assert parse_box(text) == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[0.1,0.2,0.3]",
        "[0.1,0.2,0.3,0.4].",
        "The box is [0.1,0.2,0.3,0.4]",
        "['a','b','c','d']",
        "{0.1,0.2,0.3,0.4}",
        "[1j,1j,1j,1j]",
        "__import__('os').getcwd()",
        "[0.1,0.2,0.3,exit()]",
        "[" + "9" * 400 + ",1,1,1]",
        "(" * 900,
        "[0,0,0," + "0" * 20_000 + "]",
        "[0.1,0.2,0.3,0.4\x00]",
    ],
)
def test_anything_else_is_a_miss_and_nothing_is_run(text: str) -> None:
    assert score_boxes(text, (0, 0, 1, 1), 1, 1) == BoxVerdict(False)


@pytest.mark.parametrize("module", [chat_boxes, evaluation_boxes])
def test_model_output_is_never_evaluated(module: ModuleType) -> None:
    calls = {
        n.func.id
        for n in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile"}


def test_a_hit_before_an_unreadable_part_stands() -> None:
    assert score_boxes("[0,0,1,1]; no box", (0, 0, 64, 64), 64, 64).hit
    assert not score_boxes("no box; [0,0,1,1]", (0, 0, 64, 64), 64, 64).hit


def test_threshold_counts_as_a_hit() -> None:
    assert score_boxes("[0,0,0.5,1]", (0, 0, 10, 10), 10, 10).hit
    assert not score_boxes("[0,0,0.4999,1]", (0, 0, 10, 10), 10, 10).hit


def test_reversed_corners_have_no_overlap() -> None:
    assert box_iou((1, 1, 0, 0), (0, 0, 1, 1)) == 0


def test_padding_is_halved_downwards() -> None:
    assert unpad_box((0, 0, 1, 1), 5, 2) == (0, -1, 5, 4)
    assert unpad_box((0, 0, 1, 1), 2, 5) == (-1, 0, 4, 5)


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (101, 100), (64, 64)])
def test_padding_is_undone(size):
    box = (10, 20, 55, 70)
    assert unpad_box(pad_box(box, *size), *size) == pytest.approx(box)


def test_boxes_are_written_with_three_decimals():
    # The release's rule for a picture of 400 by 100: the border above is (400 - 100) // 2
    assert format_box(pad_box((223, 4, 233, 14), 400, 100)) == "[0.557,0.385,0.583,0.410]"
    assert format_box((0.2, 0.3, 0.49, 1.0), bins=32) == "[0.188,0.312,0.500,1.000]"


def test_boxes_are_found_among_words() -> None:
    text = "a cross [0.1,0.2,0.3,0.4]; at [ .5, 0, 1, 1.0 ], not [1,2,3], [3,4,5,6], [0.9,0,0.1,1] or [1,2"
    assert find_boxes(text) == [(0.1, 0.2, 0.3, 0.4), (0.5, 0, 1, 1)]
