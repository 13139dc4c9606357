"""Rows as people have them: lists as text, other keys, one answer learned, one picture cited again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager

TAGS = {"image": "<image>"}
HUMAN = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, layout: str, row: Any, **options: Any) -> list[tuple[str, list[Any], Any]]:
    """Role, parts and weight of each message."""
    (folder / "rows.json").write_text(json.dumps([row]), encoding="utf-8")
    plugin = get_plugin_manager().get("data source", layout)
    sample = plugin.build(plugin.options(path="rows.json", **options), DataContext(folder, TAGS, folder / "cache"))[0]

    def show(part: Any) -> Any:
        value = part[part["type"]]
        return f"({value.name})" if isinstance(value, Path) else value

    return [(m["role"], [show(part) for part in m["content"]], m.get("weight")) for m in sample.messages]


EXPECTED = [("user", ["(a.png)", "\nWhat?"], None), ("assistant", ["A cat."], None)]


def test_turns_as_text_that_holds_json(folder: Path) -> None:
    chat = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A cat."}]
    assert read(folder, "llava", {"image": "a.png", "conversations": json.dumps(HUMAN)}) == EXPECTED
    assert read(folder, "sharegpt", {"images": ["a.png"], "conversations": json.dumps(HUMAN)}) == EXPECTED
    assert read(folder, "messages", {"images": ["a.png"], "messages": json.dumps(chat)}) == EXPECTED
    for text, words in (("[{'from': 'human'}]", "Python's notation"), ('{"a": 1}', "a list of turns")):
        with pytest.raises(DataError, match=words):
            read(folder, "llava", {"image": "a.png", "conversations": text})


@pytest.mark.parametrize("names", [("user", "assistant"), ("human", "gpt")])
def test_role_and_content_in_sharegpt(folder: Path, names: tuple[str, str]) -> None:
    turns = [{"role": names[0], "content": "<image>\nWhat?"}, {"role": names[1], "content": "A cat."}]
    assert read(folder, "sharegpt", {"images": ["a.png"], "conversations": turns}) == EXPECTED
    system = [{"role": "system", "content": "Be brief."}, *turns]
    found = read(folder, "sharegpt", {"images": ["a.png"], "conversations": system})
    assert found == [("system", ["Be brief."], None), *EXPECTED]


@pytest.mark.parametrize("extra", [{}, {"conversations": None}])
def test_images_and_texts(folder: Path, extra: dict[str, Any]) -> None:
    pair = {"user": "Are they alike?", "assistant": "No.", "source": "nlvr2"}
    row = {"images": ["a.png", "b.png"], "texts": [pair, {"user": "Sure?", "assistant": "Yes."}], **extra}
    front = ["(a.png)", "\n", "(b.png)", "\nAre they alike?"]
    assert read(folder, "sharegpt", row) == [
        ("user", front, None), ("assistant", ["No."], None), ("user", ["Sure?"], None), ("assistant", ["Yes."], None),
    ]  # fmt: skip
    row["texts"] = [{"user": "<image> or <image>?", "assistant": "No."}]
    assert read(folder, "sharegpt", row)[0][1] == ["(a.png)", " or ", "(b.png)", "?"]
    for texts, words in (([], "questions and answers"), ([{"user": "q"}], r"texts\[0\]"), (["q"], r"texts\[0\]")):
        with pytest.raises(DataError, match=words):
            read(folder, "sharegpt", {"images": [], "texts": texts})


def test_images_and_texts_in_parquet(folder: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    png = b"\x89PNG\r\n\x1a\n"
    row = {"images": [{"bytes": png, "path": None}], "texts": [{"user": "What?", "assistant": "A cat."}]}
    pq.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
    plugin = get_plugin_manager().get("data source", "parquet")
    options = plugin.options(path="rows.parquet")
    sample = plugin.build(options, DataContext(folder, TAGS, folder / "cache"))[0]
    assert [part["type"] for part in sample.messages[0]["content"]] == ["image", "text"]


@pytest.mark.parametrize("layout", ["llava", "messages"])
def test_only_the_last_answer_is_learned(folder: Path, layout: str) -> None:
    if layout == "llava":
        row: Any = {"image": "a.png", "conversations": [*HUMAN, {"from": "human", "value": "Sure?"}, HUMAN[1]]}
    else:
        chat = ("user", "<image>Q"), ("assistant", "A cat."), ("user", "Sure?"), ("assistant", "A cat.")
        row = {"images": ["a.png"], "messages": [{"role": role, "content": text} for role, text in chat]}
    assert [weight for *_, weight in read(folder, layout, row, train_on="last")] == [None, 0, None, None]
    assert [weight for *_, weight in read(folder, layout, row)] == [None] * 4


AGAIN = ["<image>\nWhat?", "A cat.", "<image>\nWhere?", "Here.", "Is <image> it?", "Yes."]


@pytest.mark.parametrize("layout", ["llava", "sharegpt", "messages"])
def test_one_picture_cited_again(folder: Path, layout: str) -> None:
    if layout == "messages":
        row: Any = {"images": ["a.png"], "messages": [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(AGAIN)
        ]}  # fmt: skip
    else:
        turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(AGAIN)]
        row = {"image" if layout == "llava" else "images": ["a.png"], "conversations": turns}
    repeated = [parts for _, parts, _ in read(folder, layout, row, repeated_tags="repeat")][::2]
    assert repeated == [["(a.png)", "\nWhat?"], ["(a.png)", "\nWhere?"], ["Is ", "(a.png)", " it?"]]
    dropped = [parts for _, parts, _ in read(folder, layout, row, repeated_tags="drop")][::2]
    assert dropped == [["(a.png)", "\nWhat?"], ["Where?"], ["Is  it?"]]
    with pytest.raises(DataError) as error:
        read(folder, layout, row)
    assert error.value.kind == "tag_count"
    key = "image" if layout == "llava" else "images"
    with pytest.raises(DataError):  # which of the two is meant cannot be known
        read(folder, layout, {**row, key: ["a.png", "b.png"]}, repeated_tags="repeat")


def test_reasoning_of_a_turn_is_kept(folder: Path) -> None:
    turns = [HUMAN[0], {**HUMAN[1], "reasoning_content": "It has whiskers."}]
    (folder / "rows.json").write_text(json.dumps([{"image": "a.png", "conversations": turns}]))
    plugin = get_plugin_manager().get("data source", "llava")
    sample = plugin.build(plugin.options(path="rows.json"), DataContext(folder, TAGS, folder / "cache"))[0]
    assert sample.messages[1]["reasoning_content"] == "It has whiskers."


@pytest.mark.parametrize(
    "row",
    [
        {"video": "film.mp4", "conversations": [{"from": "human", "value": "What?"}, HUMAN[1]]},
        {"video": "film.mp4", "conversations": [{"from": "human", "value": "<video>\nWhat?"}, HUMAN[1]]},
        {"image": "a.png", "video": "film.mp4", "conversations": HUMAN},
    ],
)
def test_rows_of_films_are_refused_with_the_reason(folder: Path, row: Any) -> None:
    with pytest.raises(DataError, match="no modality 'video'") as error:
        read(folder, "llava", row)
    assert error.value.kind == "unread_media"


@pytest.mark.parametrize(("encoding", "said"), [("gbk", "GBK"), ("utf-16-le", "UTF-16LE"), ("big5", "BIG5")])
def test_the_encoding_of_a_table(folder: Path, encoding: str, said: str) -> None:
    (folder / "t.csv").write_bytes("image;label\na.png;红色的圆形\nb.png;蓝色的方形\n".encode(encoding, "replace"))
    plugin = get_plugin_manager().get("data source", "table")
    asked = {"path": "t.csv", "question": "<image>?", "answer": "{{ label }}"}

    def labels(**options: Any) -> list[str]:
        source = plugin.build(plugin.options(**asked, **options), DataContext(folder, TAGS, folder / "cache"))
        return [source[i].messages[1]["content"][0]["text"] for i in range(len(source))]

    with pytest.raises(DataError, match=said) as error:
        labels()
    assert "encoding" in str(error.value)
    assert len(labels(encoding=encoding, delimiter=";")) == 2
    if encoding == "gbk":
        assert labels(encoding=encoding)[0] == "红色的圆形"
    with pytest.raises(DataError, match="ascii"):
        labels(encoding="ascii")
    with pytest.raises(DataError, match="'gbkk'"):
        labels(encoding="gbkk")
