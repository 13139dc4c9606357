"""Limits are on what costs memory, and are checked before it is taken."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.formats import table, webdataset
from adaptkit.data.formats.stand_in import write_shard
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager

TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A" * 2000}]


def open_source(name: str, path: Path, **options: Any) -> Any:
    context = DataContext(path.parent, {}, path.parent)
    return get_plugin_manager().build("data source", name, {"path": str(path), **options}, context)


@pytest.mark.parametrize("name", ["llava", "sharegpt", "messages", "table", "webdataset", "parquet", "hf_dataset"])
def test_the_text_of_a_conversation_is_limited_in_every_format(tmp_path, name):
    options: dict[str, Any] = {}
    row: dict[str, Any] = {"conversations": TURNS}
    path = tmp_path / "rows.jsonl"
    if name == "messages":
        row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A" * 2000}]}
    if name == "table":
        row, options = {"a": "A" * 2000}, {"question": "Q", "answer": "{{ a }}"}
    path.write_text(json.dumps(row))
    if name == "webdataset":
        path = write_shard(tmp_path / "rows.tar", [("0", {"json": json.dumps(row).encode()})])
    if name in ("parquet", "hf_dataset"):
        pytest.importorskip("datasets")
        from adaptkit.data.formats.stand_in import write_dataset, write_parquet

        write = {"parquet": write_parquet, "hf_dataset": write_dataset}[name]
        path = write(tmp_path / "rows.parquet", [row])
    with pytest.raises(DataError, match=r"2,0.. characters.*1,000.*max_characters") as error:
        open_source(name, path, max_characters=1000, **options)[0]
    assert error.value.kind == "too_large"
    assert open_source(name, path, **options)[0].messages


@pytest.mark.parametrize(("name", "separator"), [("rows.jsonl", b"\n"), ("rows.json", b",")])
def test_a_row_of_any_length_costs_no_more_than_its_limit_and_spoils_itself(tmp_path, name, separator):
    path = tmp_path / name
    row = json.dumps({"conversations": TURNS}).encode()
    rows = separator.join([row, b'{"a": "\\"' + b"x" * 20_000_000 + b'"}', row])
    path.write_bytes(b"[" + rows + b"]" if name == "rows.json" else rows)
    tracemalloc.start()
    source = open_source("llava", path, max_row_mb=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert len(source) == 3
    assert source[0].messages
    assert source[2].messages
    with pytest.raises(DataError, match=r"(line 2|\[1\]: the row) is longer than .*max_row_mb"):
        source[1]


def test_tables_are_limited_by_columns_and_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MAX_COLUMNS", 3)
    monkeypatch.setattr(table, "MAX_CELLS", 8)
    path = tmp_path / "t.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n")
    with pytest.raises(DataError, match="4 columns"):
        table.read_rows(path)
    path.write_text("a,b,c\n" + "1,2,3\n" * 5)
    with pytest.raises(DataError, match="more than 8 cells"):
        table.read_rows(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_long_headers_of_archives_are_not_read(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_EXTENSION", 1000)
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 50_000
    path = tmp_path / "rows.tar"
    path.write_bytes(header.tobuf() + bytes(51200) + io.BytesIO().getvalue())
    with pytest.raises(DataError, match="extended header of 50,000 bytes"):
        webdataset.scan(path)


def test_a_parquet_file_is_refused_before_it_unpacks_to_more_than_memory(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    options = {"question": "Q", "answer": "{{ a }}", "max_row_group_mb": 16, "max_characters": 10**9}
    pq.write_table(pa.table({"a": ["x" * 1_000_000] * 100}), path, compression="zstd")  # stored once
    assert path.stat().st_size < 20_000
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="max_row_group_mb") as error:
        open_source("parquet", path, **options)[0]
    assert error.value.kind == "too_large"
    assert pa.total_allocated_bytes() - before < 40_000_000
    pq.write_table(pa.table({"a": pa.repeat(1.5, 3_000_000)}), path, row_group_size=3_000_000)  # runs of one number
    with pytest.raises(DataError, match="max_row_group_mb"):
        open_source("parquet", path, **options)[0]
    texts = [f"{i % 7}" for i in range(5000)] + ["y" * 100_000]
    pq.write_table(pa.table({"a": texts}), path)
    source = open_source("parquet", path, **options)
    assert [source[i].messages[1]["content"][0]["text"] for i in (3, 5000)] == ["3", "y" * 100_000]
