"""The web page without its page: what a chat on it asks, and what is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.cli import cli
from adaptkit.errors import DataError
from adaptkit.serving.demo.drawing import draw_boxes
from adaptkit.serving.demo.history import from_markdown, messages_of, part_of_file, to_markdown, turns_of


def says(role: str, *entries: str | dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": e} if isinstance(e, str) else e for e in entries]}


def file(path: str) -> dict[str, Any]:
    return {"type": "file", "file": {"path": path}}


SIGNATURE = {"type": "component", "component": "html", "value": "vision"}


def test_only_answered_questions_are_asked_again() -> None:
    history = [
        says("user", file("/tmp/a.png"), "what?"),
        says("assistant", "a &lt;cat>", SIGNATURE, file("/tmp/drawn.png")),
        says("user", "it failed"),
        says("assistant", SIGNATURE),
        says("user", "nobody answered"),
        says("user", "and?"),
        says("assistant", "two", SIGNATURE),
        says("user", "stopped before it began"),
    ]
    assert turns_of(history, ["image"]) == [
        ("user", [("image", "/tmp/a.png"), ("text", "what?")]),
        ("assistant", [("text", "a <cat>")]),
        ("user", [("text", "and?")]),
        ("assistant", [("text", "two")]),
    ]


def test_media_stand_before_the_words(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    parts = [("image", str(tmp_path / "a.png")), ("image", str(tmp_path / "b.png")), ("text", "which?")]
    assert messages_of([("user", parts), ("assistant", [("text", "this")])], "be brief") == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": b"a.png"},
                {"type": "image", "image": b"b.png"},
                {"type": "text", "text": "\nwhich?"},
            ],
        },
        {"role": "assistant", "content": "this"},
    ]
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png"):
        messages_of([("user", parts)], "")


@pytest.mark.parametrize(
    ("path", "modalities", "kind"),
    [
        ("a.PNG", ["image"], "image"),
        ("a.wav", ["image", "audio"], "audio"),
        ("a.npy", ["image", "timeseries"], "timeseries"),
        ("a.csv", ["timeseries"], "timeseries"),
        ("a.jpg", None, "image"),
    ],
)
def test_a_file_has_the_modality_that_its_name_shows(path: str, modalities: list[str] | None, kind: str) -> None:
    assert part_of_file(path, modalities) == (kind, path)


@pytest.mark.parametrize(
    ("path", "modalities", "says"),
    [
        ("a.wav", ["image"], "image"),
        ("a.txt", None, "audio"),
        ("a.png", [], "nothing"),
        ("a.npy", ["one", "two"], "two"),
    ],
)
def test_a_file_of_another_kind_is_named(path: str, modalities: list[str] | None, says: str) -> None:
    with pytest.raises(DataError, match=rf"{path}.*{says}"):
        part_of_file(path, modalities)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["&", "<", "!", "[", "`", "```", "\n", "a", "amp;", "lt;", "#91;", "]("])).map("".join))
def test_an_answer_on_the_page_is_the_answer(text: str) -> None:
    assert from_markdown(to_markdown(text)) == text


def test_an_answer_holds_neither_tags_nor_pictures() -> None:
    shown = to_markdown("<img src=x> ![x](http://x/y.png) `a < b` **bold**")
    assert shown == "&lt;img src=x> !&#91;x](http://x/y.png) `a < b` **bold**"


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (64, 64)])
def test_boxes_are_brought_back_from_the_padded_square(size: tuple[int, int]) -> None:
    box = (size[0] * 0.25, size[1] * 0.5, size[0] * 0.5, size[1] * 0.75)
    drawn = draw_boxes(Image.new("RGB", size), f"here: {format_box(pad_box(box, *size), decimals=6)}")
    assert drawn is not None
    scale = max(drawn.size) / max(size)
    left, top, right, bottom = drawn.convert("L").point(lambda value: 255 * (value > 40)).getbbox() or (0, 0, 0, 0)
    assert (left, top, right - 1, bottom - 1) == pytest.approx([scale * value for value in box], abs=1.5)


def test_several_boxes_are_numbered_and_none_is_drawn_of_other_numbers() -> None:
    picture = Image.new("RGB", (64, 64))
    assert draw_boxes(picture, "[0,0,64,64] or [1,2,3]") is None
    drawn = draw_boxes(picture, "[0.1,0.1,0.4,0.4]; [0.5,0.5,0.9,0.9]")
    assert drawn is not None
    assert len(drawn.getcolors(1 << 20) or []) > 3


def test_a_page_without_gradio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(cli, ["demo", "some/run"])
    assert result.exit_code == 2
    assert "inner-adaptkit[demo]" in result.stderr
