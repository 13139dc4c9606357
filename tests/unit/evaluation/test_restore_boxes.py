"""Boxes of answers, brought back from the padded square."""

from __future__ import annotations

import pytest

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.evaluation.official.refcoco import first_box
from adaptkit.evaluation.public_data import restore_boxes

WIDE = (200, 100)


@pytest.mark.parametrize(
    ("text", "restored"),
    [
        ("[0.25,0.25,0.5,0.75]", "[0.25,0,0.5,1]"),
        ("It is [0.25, 0.25, 0.5, 0.75].", "It is [0.25,0,0.5,1]."),
        ("[0.25,0.25,0.5,0.75]; [0.1,0.5,0.2,0.75]", "[0.25,0,0.5,1]; [0.1,0.5,0.2,1]"),
        ("(0.25,0.25,0.5,0.75)", "(0.25,0,0.5,1)"),
        ("0.25,0.25,0.5,0.75", "0.25,0,0.5,1"),
        ("[0.25,0.25,0.5,0.75,0.9]", "[0.25,0,0.5,1,0.9]"),
        ("[0,0,1,1]", "[0,-0.5,1,1.5]"),
    ],
)
def test_boxes_are_brought_back(text: str, restored: str) -> None:
    assert restore_boxes(text, WIDE) == restored


@pytest.mark.parametrize(
    "text", ["", "no box", "[0.1,0.2,0.3]", "[a,b,c,d]", "[]", "1,2,3,4 apples", "(0.1,0.2", "[0.1,0.2,1e999,0.4]"]
)
def test_what_holds_no_box_stays(text: str) -> None:
    assert restore_boxes(text, WIDE) == text


def test_a_square_picture_changes_nothing() -> None:
    assert restore_boxes("[0.123456789012,0.2,0.3,0.4]", (50, 50)) == "[0.123456789012,0.2,0.3,0.4]"


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (7, 3)])
def test_the_harness_reads_the_box_that_was_meant(size: tuple[int, int]) -> None:
    width, height = size
    pixels = (0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height)
    text = restore_boxes(format_box(pad_box(pixels, width, height), decimals=9), size)
    assert first_box(text) == pytest.approx((0.1, 0.2, 0.7, 0.9), abs=1e-7)
