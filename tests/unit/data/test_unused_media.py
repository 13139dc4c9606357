"""Rows whose media nothing reads are bad samples, and not learned as text."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.media_types import begins_a_medium, kind_of
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
FLAC = b"fLaC" + bytes(20)
TURNS = [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "they"}]
MESSAGES = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "they"}]
TEMPLATES = {"question": "who?", "answer": "{{ label }}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.wav"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


def source(name: str, folder: Path, path: str, tags: tuple[str, ...] = ("image",), **options: Any) -> Any:
    manager = get_plugin_manager()
    context = DataContext(folder, {tag: f"<{tag}>" for tag in tags}, None)
    values = {"path": str(folder / path), **options}
    return manager.get("data source", name).build(manager.options("data source", name, values), context)


def rows(folder: Path, *values: Any) -> str:
    (folder / "rows.json").write_text(json.dumps(values))
    return "rows.json"


def asking(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": text}, TURNS[1]]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"images": ["a.png"], "conversations": TURNS}, "images"),
        ({"image_path": "a.png", "conversations": TURNS}, "image_path"),
        ({"audio": "b.wav", "conversations": TURNS}, "audio"),
        ({"video": "elsewhere/film.mp4", "conversations": asking("<video>who?")}, "video"),
        ({"videos": ["elsewhere/film.mp4"], "conversations": asking("<video>who?")}, "videos"),
    ],
)
def test_conversations_with_media_under_another_key(folder: Path, row: Any, key: str) -> None:
    with pytest.raises(DataError, match=f"nothing reads '{key}', which holds media") as caught:
        source("llava", folder, rows(folder, row))[0]
    assert caught.value.kind == "unread_media"


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": TURNS},
        {"image": "", "conversations": TURNS},
        {"image": None, "source": "elsewhere/b.jpg", "conversations": TURNS},
        {"url": "https://example.org/a.png", "file_name": "gone.png", "conversations": TURNS},
        {"image": "a.png", "original": "b.wav", "conversations": asking("<image>who?")},
        {"hash": "aGVsbG8=", "meta": {"list": [1, 2.5, None, {"deep": {"deeper": 1}}]}, "conversations": TURNS},
        {"": "x" * 5000 + ".png", "conversations": TURNS},
        {"odd": "nul\0.png", "conversations": TURNS},
    ],
)  # fmt: skip
def test_rows_of_text_may_have_other_keys(folder: Path, row: Any) -> None:
    assert len(source("llava", folder, rows(folder, row))[0].messages) == 2


def test_messages(folder: Path) -> None:
    with pytest.raises(DataError, match="nothing reads 'picture'"):
        source("messages", folder, rows(folder, {"picture": "a.png", "messages": MESSAGES}))[0]


def test_tables(folder: Path) -> None:
    (folder / "t.csv").write_text("img_path,label\na.png,x\n")
    with pytest.raises(DataError, match=r"'img_path'.*columns"):
        source("table", folder, "t.csv", **TEMPLATES)[0]
    named = source("table", folder, "t.csv", columns={"image": "img_path"}, **TEMPLATES)[0]
    assert named.messages[0]["content"][0]["type"] == "image"
    (folder / "t.jsonl").write_text(json.dumps({"images": ["a.png", "a.png"], "label": "x"}))
    kinds = [part["type"] for part in source("table", folder, "t.jsonl", **TEMPLATES)[0].messages[0]["content"]]
    assert kinds == ["image", "text", "image", "text"], "the plural is a column of media too"


def test_parquet(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for img in ({"bytes": PNG, "path": None}, PNG):
        pq.write_table(pa.table({"img": [img], "label": ["x"], "digest": [b"\x01\x02"]}), folder / "t.parquet")
        with pytest.raises(DataError, match="nothing reads 'img'"):
            source("parquet", folder, "t.parquet", **TEMPLATES)[0]
        read = source("parquet", folder, "t.parquet", columns={"image": "img"}, **TEMPLATES)[0]
        assert read.messages[0]["content"][0]["type"] == "image"
    pq.write_table(pa.table({"label": ["x"], "digest": [b"\x01\x02"]}), folder / "t.parquet")
    assert source("parquet", folder, "t.parquet", **TEMPLATES)[0].messages


def shard(folder: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(folder / "s.tar", "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return "s.tar"


def test_members_of_archives(folder: Path) -> None:
    path = shard(folder, {"1.rec": FLAC, "1.txt": b"they"})
    with pytest.raises(DataError, match=r"1\.rec.*endings"):
        source("webdataset", folder, path, ("audio",), question="who?")[0]
    read = source("webdataset", folder, path, ("audio",), question="who?", endings={"audio": ["rec"]})[0]
    assert read.messages[0]["content"][0]["type"] == "audio"
    path = shard(folder, {"1.npy": b"\x93NUMPY", "1.txt": b"they"})
    assert source("webdataset", folder, path, ("audio",), question="who?")[0].messages


@pytest.mark.parametrize("ending", ["flac", "opus", "m4a", "wav", "mp3", "FLAC"])
def test_endings_are_known_whatever_python_knows(folder: Path, ending: str) -> None:
    path = shard(folder, {f"1.{ending}": FLAC, "1.txt": b"they"})
    read = source("webdataset", folder, path, ("audio",), question="who?")[0]
    assert read.messages[0]["content"][0]["type"] == "audio"


def test_kinds() -> None:
    assert [kind_of(name) for name in ("a.JPG", "b/c.flac", "d.mp4", "e.txt", "f.json", "g", "")] == [
        "image", "audio", "video", None, None, None, None,
    ]  # fmt: skip
    assert begins_a_medium(PNG)
    assert begins_a_medium(b"\0\0\0\x18ftypmp42")
    assert not begins_a_medium(b"hello")
    assert not begins_a_medium(b"")
