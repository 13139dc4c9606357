"""Rows are data: whatever a row writes, media are read below the folders of the dataset alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.formats.stand_in import write_dataset, write_parquet, write_shard
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, DataSource
from adaptkit.plugin_manager import get_plugin_manager

TAGS = {"image": "<image>"}
QUESTION = {"question": "<image>", "answer": "{{ a }}"}
FORMATS = ("llava", "sharegpt", "messages", "url_parts", "table", "csv", "pairs", "parquet", "webdataset", "hf_dataset")


def write_row(name: str, folder: Path, medium: str) -> dict[str, Any]:
    """Write a row of a format that names a medium; the options that read it."""
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A"}]
    chat = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "A"}]
    rows: dict[str, Any] = {
        "sharegpt": {"conversations": turns, "images": [medium]},
        "messages": {"messages": chat, "images": [{"path": medium, "bytes": None}]},
        "url_parts": {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": medium}}]}, chat[1]]
        },
        "table": {"image": medium, "a": "A"},
        "pairs": {"image": medium, "a": "A"},
    }
    row = rows.get(name, {"conversations": turns, "image": medium})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "a": "B"}))
    if name == "csv":
        (folder / "rows.csv").write_text(f"image,a\n{medium},A\n")
        return {"path": "rows.csv", **QUESTION}
    if name == "pairs":
        table = {"path": "rows.jsonl"}
        return {"first": table, "second": table, "on": "a", "question": "<image><image>", "answer": "{{ same }}"}
    if name == "parquet":
        return {"path": write_parquet(folder / "rows.parquet", [row]).name}
    if name == "hf_dataset":
        return {"path": write_dataset(folder / "saved", [row]).name, "media": "."}
    if name == "webdataset":
        return {"path": write_shard(folder / "rows.tar", [("0", {"json": json.dumps(row).encode()})]).name}
    return {"path": "rows.jsonl", **(QUESTION if name == "table" else {})}


def open_source(name: str, folder: Path, options: dict[str, Any], **more: Any) -> DataSource:
    name = {"url_parts": "messages", "csv": "table"}.get(name, name)
    context = DataContext(folder, TAGS, folder.parent / "cache")
    source: DataSource = get_plugin_manager().build("data source", name, {**options, **more}, context)
    return source


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    path.write_bytes(b"secret")
    return path


WAYS: dict[str, Callable[[Path, Path], str]] = {
    "absolute": lambda folder, outside: str(outside),
    "upwards": lambda folder, outside: f"x/../../private/{outside.name}",
    "address": lambda folder, outside: f"file://{outside}",
    "escaped": lambda folder, outside: f"FILE:///{str(outside).replace('private', '%70rivate')[1:]}",
    "link": lambda folder, outside: _linked(folder / "link.png", outside).name,
    "link_of_folder": lambda folder, outside: f"{_linked(folder / 'linked', outside.parent).name}/{outside.name}",
}


def _linked(link: Path, target: Path) -> Path:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    return link


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", WAYS)
def test_media_outside_the_dataset_are_refused_until_their_folder_is_named(tmp_path, outside, name, way):
    if name in ("parquet", "hf_dataset"):
        pytest.importorskip("datasets")
    folder = tmp_path / "data"
    (folder / "x").mkdir(parents=True)
    options = write_row(name, folder, WAYS[way](folder, outside))
    with pytest.raises(DataError) as error:
        open_source(name, folder, options)[0]
    assert error.value.kind == "outside_media"
    assert all(
        word in str(error.value) for word in (outside.name, "[0]" if name != "webdataset" else ":0", "media_roots")
    )
    for roots in (["../private"], [str(outside.parent)]):
        parts = open_source(name, folder, options, media_roots=roots)[0].messages[0]["content"]
        assert any(part.get("image") and Path(part["image"]).read_bytes() == b"secret" for part in parts)


def test_a_dataset_on_another_disk_may_be_reached_by_a_link(tmp_path, outside):
    link = _linked(tmp_path / "data", outside.parent)
    for medium in ("secret.png", str(outside), str(link / "secret.png"), f"file://{outside}"):
        for extra in ({}, {"media": "."}):
            source = open_source("llava", link, write_row("llava", link, medium), **extra)
            assert source[0].messages[0]["content"][0]["image"].read_bytes() == b"secret"


def test_media_lie_anywhere_below_data_root_unless_their_folder_is_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"a")
    options = write_row("llava", tmp_path / "rows", "../pictures/a.png")
    assert open_source("llava", tmp_path, {"path": f"rows/{options['path']}"})[0].messages
    with pytest.raises(DataError, match="media_roots"):
        open_source("llava", tmp_path, {"path": f"rows/{options['path']}", "media": "rows"})[0]


def test_a_snapshot_of_the_hub_is_read_through_its_links(tmp_path):
    repository = tmp_path / "datasets--a--b"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs/0").write_bytes(b"a")
    snapshot = repository / "snapshots/1/part"
    _linked(snapshot / "a.png", Path("../../../blobs/0"))
    assert open_source("llava", snapshot, write_row("llava", snapshot, "a.png"))[0].messages


def test_text_that_is_almost_base64_is_told_in_no_time(tmp_path):
    options = write_row("llava", tmp_path, "/9j/" + " " * 200_000 + "!")
    with pytest.raises(DataError):
        open_source("llava", tmp_path, options)[0]
