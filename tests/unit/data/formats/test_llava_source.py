"""The LLaVA reader: what it understands, and how it names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data import row_index
from adaptkit.data.formats.llava import LlavaLayout
from adaptkit.data.media import Media
from adaptkit.data.row_index import load_rows
from adaptkit.data.rows import RowSource
from adaptkit.errors import DataError

TAGS = {"pic": "<pic>"}


def row(*turns: str, **keys: Any) -> dict[str, Any]:
    speakers = ("human", "gpt")
    conversation = [{"from": speakers[i % 2], "value": value} for i, value in enumerate(turns)]
    return {"id": "r", "conversations": conversation} | keys


def llava(
    path: Path,
    media: Path,
    tags: dict[str, str],
    limit: int | None = None,
    media_roots: Sequence[Path] = (),
    **options: Any,
) -> RowSource:
    layout = LlavaLayout(tags, **options)
    return RowSource(load_rows(path), layout, Media(media), str(path), limit, media_roots=media_roots)


def read(path: Path, index: int = 0, tags: dict[str, str] = TAGS, **options: Any) -> list[tuple[str, list[Any]]]:
    """Role and parts of each message; text as it is, a medium as its file's name in angle brackets."""
    sample = llava(path, media=path.parent, tags=tags, **options)[index]
    return [
        (message["role"], [p["text"] if p["type"] == "text" else f"<{p[p['type']].name}>" for p in message["content"]])
        for message in sample.messages
    ]


@pytest.mark.parametrize(
    ("human", "media", "parts"),
    [
        ("<pic>\nWhat?", "a.bin", ["<a.bin>", "\nWhat?"]),
        ("What?\n<pic>", "a.bin", ["What?\n", "<a.bin>"]),
        ("What <pic> is?", ["a.bin"], ["What ", "<a.bin>", " is?"]),
        ("<pic>", "a.bin", ["<a.bin>"]),
        ("<pic><pic>\nWhich?", ["a.bin", "b.bin"], ["<a.bin>", "<b.bin>", "\nWhich?"]),
        ("What?", None, ["What?"]),
        ("What?", [], ["What?"]),
    ],
)
def test_media_stay_where_the_file_has_them(write_rows, human, media, parts):
    assert read(write_rows([row(human, "A.", pic=media)])) == [("user", parts), ("assistant", ["A."])]


def test_tags_may_stand_in_any_human_turn(write_rows):
    path = write_rows([row("Hello", "Hi.", "<pic> and?", "It.", "then <pic>", "That.", pic=["a.bin", "b.bin"])])
    user = [parts for role, parts in read(path) if role == "user"]
    assert user == [["Hello"], ["<a.bin>", " and?"], ["then ", "<b.bin>"]]


def test_tags_in_answers_are_text(write_rows):
    path = write_rows([row("Which tag?", "<pic>")])
    assert read(path)[1] == ("assistant", ["<pic>"])


def test_several_modalities(write_rows):
    path = write_rows([row("<snd> <pic> <snd>", "A.", pic="a.bin", snd=["b.bin", "a.bin"])])
    parts = read(path, tags={"pic": "<pic>", "snd": "<snd>"})[0][1]
    assert parts == ["<b.bin>", " ", "<a.bin>", " ", "<a.bin>"]


def test_a_leading_answer_is_dropped(write_rows):
    leading = row("Q", "A")
    leading["conversations"].insert(0, {"from": "gpt", "value": "Welcome"})
    assert read(write_rows([leading]))[0] == ("user", ["Q"])


def test_ids_are_text_and_unknown_keys_are_ignored(write_rows):
    source = llava(write_rows([row("Q", "A", id=42, url="u"), {**row("Q", "A"), "id": "x"}]), media=Path(), tags={})
    assert [source[0].id, source[1].id] == ["42", "x"]
    assert source[0].location.endswith("rows.json[0]")


def test_limit_and_system(write_rows):
    path = write_rows([row("Q", str(i)) for i in range(5)])
    source = llava(path, media=Path(), tags={}, limit=2)
    assert len(source) == 2
    with pytest.raises(IndexError):
        source[2]
    assert read(path, system="Be kind.")[0] == ("system", ["Be kind."])


@pytest.mark.parametrize(
    ("turns", "media", "parts"),
    [
        (["What? <pic>"], "a.bin", [["<a.bin>", "\nWhat?"]]),
        (["<pic>"], "a.bin", [["<a.bin>"]]),
        (["x <pic> y <pic>"], ["a.bin", "b.bin"], [["<a.bin>", "\n", "<b.bin>", "\nx  y"]]),
        (["x <pic> y <pic>"], "a.bin", [["<a.bin>", "\nx  y"]]),
        (["none", "then <pic>"], "a.bin", [["none"], ["<a.bin>", "\nthen"]]),
    ],
)
def test_media_move_to_the_front_on_request(write_rows, turns, media, parts):
    path = write_rows([row(*(value for turn in turns for value in (turn, "A.")), pic=media)])
    assert [found for role, found in read(path, move_media_to_front=True) if role == "user"] == parts


BAD_ROWS = [
    ("not a row", "a row is an object"),
    ({}, "'conversations' must be a list of turns"),
    ({"conversations": []}, "'conversations' must be a list of turns"),
    ({"conversations": [3]}, "turn 0 must be an object with 'from' and 'value'"),
    ({"conversations": [{"from": "humen", "value": "Q"}]}, "turn 0: no speaker named 'humen'. Did you mean 'human'"),
    ({"conversations": [{"from": "human", "value": 1}]}, "turn 0: 'value' must be text, not int"),
    ({"conversations": [{"from": "human", "value": "Q"}] * 2}, "turn 1 is from the user"),
    ({"conversations": [{"from": "gpt", "value": "A"}] * 2}, "turn 1 is from the assistant"),
    ({"conversations": [{"from": "gpt", "value": "A"}]}, "no question with an answer"),
    (row("Q"), "no question with an answer"),
    (row("Q", " \n"), "turn 1: the answer is empty"),
    (row("Q", "A", pic="a.bin"), "1 under 'pic', but 0 <pic> in human turns"),
    (row("<pic>", "A"), "0 under 'pic', but 1 <pic> in human turns"),
    (row("<pic> <pic>", "A", pic=["a.bin"]), "1 under 'pic', but 2 <pic> in human turns"),
    (row("<pic>", "A", pic=3), "'pic' must be a path or a list of paths, not 3"),
    (row("<pic>", "A", pic=[""]), "'pic' must be a path or a list of paths"),
    (row("<pic>", "A", pic="c.bin"), "'pic' is missing: no file"),
    (row("<pic>", "A", pic="x" * 5000), "'pic' cannot be reached"),
    (row("<pic>", "A", pic="a\0b"), "'pic' is missing"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_ROWS)
def test_bad_rows_are_named(write_rows, bad, said):
    path = write_rows([row("Q", "A"), bad])
    source = llava(path, media=path.parent, tags=TAGS)
    source[0]
    with pytest.raises(DataError) as caught:
        source[1]
    assert said in str(caught.value)
    assert f"{path}[1]" in str(caught.value)
    assert not (isinstance(bad, dict) and "id" in bad) or f"(id {bad['id']!r})" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "the dataset is empty"),
        ("{}", "is a JSON list of rows, not dict"),
        ('[{"id": 1},', "not valid JSON"),
        ("", "is empty"),
        (b"\xff\xfe\x00", "is not UTF-16"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_files_are_data_errors(tmp_path, content, said):
    path = tmp_path / "rows.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        llava(path, media=tmp_path, tags=TAGS)


def test_a_broken_line_spoils_only_itself(tmp_path):
    good = json.dumps(row("Q", "A"))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([good, "", good[:-2], good, good[:9]]))
    source = llava(path, media=tmp_path, tags=TAGS)
    assert len(source) == 4
    assert source[0].messages == source[2].messages
    for index, line in ((1, 3), (3, 5)):
        with pytest.raises(DataError, match=rf"rows\.jsonl\[{index}\]: line {line}: .*JSON.* column \d+"):
            source[index]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson"])
@pytest.mark.parametrize("layout", ["list", "pretty list", "lines"])
def test_the_content_says_how_a_file_is_laid_out(tmp_path, name, layout):
    rows = [row("Q", "A"), row("R", "B")]
    text = {
        "list": json.dumps(rows),
        "pretty list": "\ufeff\n" + json.dumps(rows, indent=2),
        "lines": "\n".join(map(json.dumps, rows)),
    }[layout]
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = llava(tmp_path / name, media=tmp_path, tags=TAGS)
    assert [source[i].messages[1]["content"][0]["text"] for i in range(len(source))] == ["A", "B"]


def test_a_file_s_address_is_its_path(tmp_path):
    (tmp_path / "a b.pic").touch()
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row("<pic>", "A", pic=f"file://{tmp_path}/a%20b.pic")]))
    parts = llava(path, media=tmp_path, tags=TAGS)[0].messages[0]["content"]
    assert parts == [{"type": "pic", "pic": tmp_path / "a b.pic"}]


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"rows\.json: No such file"):
        llava(tmp_path / "rows.json", media=tmp_path, tags=TAGS)


def test_a_file_in_use_is_parsed_once_and_again_when_it_changed(write_rows, monkeypatch):
    parsed = []
    original = row_index.scan_rows
    monkeypatch.setattr(row_index, "scan_rows", lambda path, limit: parsed.append(path) or original(path, limit))
    path = write_rows([row("Q", "A")])
    first = llava(path, media=path.parent, tags=TAGS)
    llava(path, media=path.parent, tags=TAGS, limit=1)
    assert len(parsed) == 1
    write_rows([row("Q", "A"), row("Q", "A")])
    assert len(llava(path, media=path.parent, tags=TAGS)) == 2
    assert len(first) == 1


def test_the_published_samples_are_read(shared):
    folder = shared / "data/formats"
    roots = [shared / "data/images"]
    for name in ("llava_conversations.json", "allava.json"):
        rows = json.loads((folder / name).read_text(encoding="utf-8"))
        source = llava(folder / name, media=folder, tags={"image": "<image>"}, media_roots=roots)
        assert len(source) == len(rows)
        for sample, original in zip((source[i] for i in range(len(source))), rows):
            written = ["".join(p.get("text", "<image>") for p in message["content"]) for message in sample.messages]
            assert written == [t["value"] for t in original["conversations"]]
            assert sample.id == str(original["id"])
