"""The data sources as plugins: options, what is missing, stand-ins, and the world's cache."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from adaptkit_image.stand_in import write_picture

from adaptkit.errors import DataError, PluginError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.run.rehearsal import sample_conversations


@pytest.fixture
def context(tmp_path: Path) -> DataContext:
    return DataContext(data_root=tmp_path / "data", tags={"image": "<image>"}, cache_dir=tmp_path / "cache")


def build(name: str, context: DataContext, **values):
    return get_plugin_manager().build("data source", name, values, context)


def missing(name: str, context: DataContext, **values) -> str | None:
    manager = get_plugin_manager()
    options = manager.options("data source", name, values)
    return manager.get("data source", name).missing(options, context)


def test_llava_paths_are_relative_to_the_data_root(context):
    folder = context.data_root / "set"
    (folder / "media").mkdir(parents=True)
    (folder / "media/a.png").write_bytes(b"x")
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A."}]
    (folder / "rows.json").write_text(json.dumps([{"id": 1, "image": "a.png", "conversations": turns}]))
    source = build("llava", context, path="set/rows.json", media="set/media")
    assert source[0].messages[0]["content"] == [{"type": "image", "image": folder / "media/a.png"}]
    with pytest.raises(DataError, match="'image' is missing"):
        build("llava", context, path=str(folder / "rows.json"))[0]
    assert missing("llava", context, path="set/rows.json", media="set/media") is None


def test_what_is_missing_is_named_with_what_to_do(context):
    said = missing("llava", context, path="set/rows.json")
    assert said is not None
    assert str(context.data_root / "set/rows.json") in said
    assert "data_root" in said
    (context.data_root / "set").mkdir(parents=True)
    (context.data_root / "set/rows.json").write_text("[]")
    said = missing("llava", context, path="set/rows.json", media="images")
    assert said is not None
    assert "no media folder" in said
    assert missing("world", context, kind="caption") is None


@pytest.mark.parametrize("values", [{"path": "x", "limit": 0}, {"path": "x", "pth": "y"}, {}])
def test_llava_options_are_validated(context, values):
    with pytest.raises(PluginError):
        build("llava", context, **values)


@pytest.mark.parametrize("name", ["llava", "world"])
def test_stand_ins_can_be_read(context, tmp_path, name):
    manager = get_plugin_manager()
    component = manager.get("data source", name)
    values = {"path": "/nowhere/rows.json", "limit": 100_000} if name == "llava" else {"kind": "boxes"}
    write_picture(tmp_path, 0)
    samples = sample_conversations({"image": [tmp_path / "0.png"]}, 4)
    arguments = (manager.options("data source", name, values), tmp_path / "stand_in", samples, context.tags)
    source = component.build(component.stand_in(*arguments), context)
    assert len(source) == 4
    assert {part["type"] for message in source[0].messages for part in message["content"]} == {"text", "image"}
    if name == "llava":
        assert [source[i].messages for i in range(4)] == [sample.messages for sample in samples]


@pytest.mark.parametrize("kind", ["caption", "questions", "boxes", "text"])
def test_the_world_is_written_once(context, kind):
    source = build("world", context, kind=kind, num_samples=5, system="S")
    assert len(source) == 5
    assert [m["role"] for m in source[4].messages][:3] == ["system", "user", "assistant"]
    written = {path: path.stat().st_mtime_ns for path in context.cache_dir.rglob("*")}
    again = build("world", context, kind=kind, num_samples=5)
    assert again[4].messages == source[4].messages[1:]
    assert {path: path.stat().st_mtime_ns for path in context.cache_dir.rglob("*")} == written
    assert build("world", context, kind=kind, num_samples=5, seed=1)[4].messages != again[4].messages


def test_processes_may_write_the_world_at_once(context):
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: build("world", context, kind="caption", num_samples=6), range(4)))
    assert all(source[5].messages == sources[0][5].messages for source in sources)
    assert len([path for path in (context.cache_dir / "world").iterdir() if path.is_dir()]) == 1


def test_the_world_needs_its_modality(context):
    blind = DataContext(context.data_root, {"sound": "<sound>"}, context.cache_dir)
    with pytest.raises(DataError, match=r"<image>.*<sound>"):
        build("world", blind, kind="boxes")
    assert len(build("world", blind, kind="text", num_samples=3)) == 3
