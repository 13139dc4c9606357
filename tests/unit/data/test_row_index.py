"""Rows of JSON files are indexed once, for all processes, and are what the file says."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.row_index import JsonRows, load_rows
from adaptkit.errors import DataError, RunError

ROWS: list[Any] = [
    {"id": 1, "conversations": [{"from": "human", "value": "Ä\ud800\U0001f600 \\ud83d"}], "unknown": {"a": [None, {}]}},
    {"big": 2**80, "float": 0.1, "small": 5e-324, "huge": 1e400, "neg": -0.0, "text": "\u2028\n"},
    "no object",
    None,
    [[]],
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "rows.json"
    path.parent.mkdir()
    path.write_text(json.dumps(ROWS))
    return path


def load(path: Path, **options: Any) -> JsonRows:
    gc.collect()  # what is in use is shared, and not read again
    return load_rows(path, path.parents[1] / "cache", min_bytes=0, **options)


def indices(path: Path) -> list[Path]:
    return sorted((path.parents[1] / "cache" / "rows").glob("*.arrow"))


@pytest.mark.parametrize("min_bytes", [0, 10**9])
def test_rows_are_what_the_file_says(path, min_bytes):
    rows = load_rows(path, path.parents[1] / "cache", min_bytes=min_bytes)
    assert [json.dumps(row) for row in rows] == [json.dumps(row) for row in ROWS]
    assert rows[-1] == [[]]
    assert rows[1:3] == [rows[1], "no object"]
    with pytest.raises(IndexError):
        rows[len(ROWS)]
    assert len(indices(path)) == (min_bytes == 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bad_lines_keep_their_place_and_what_is_said_of_them(path, encoding):
    path = path.with_suffix(".jsonl")
    path.write_text('{"a": "ä"}\n\n{"a": }\n{"a": 1, "a": 2}\n{"b": "' + "x" * 2000 + '"}\n7', encoding=encoding)
    rows = load(path, max_row_bytes=1000)
    assert [row for row in rows if not isinstance(row, DataError)] == [{"a": "ä"}, 7]
    bad = [str(row) for row in rows if isinstance(row, DataError)]
    assert bad[0] == "line 3: not valid JSON: Expecting value at column 7"
    assert bad[1] == "line 4: an object has the key 'a' twice: keep one of them"
    assert bad[2].startswith("line 5 is longer than 1,000 bytes")
    assert [row.kind for row in rows if isinstance(row, DataError)][-1] == "too_large"


def test_a_file_is_indexed_once_and_again_when_it_changed(path):
    load(path)
    (first,) = indices(path)
    built = first.stat().st_ino
    assert load(path)[1]["big"] == 2**80
    assert [one.stat().st_ino for one in indices(path)] == [built]
    in_use = load(path)
    path.write_text("[1, 2]")
    assert list(load(path)) == [1, 2]
    assert len(in_use) == len(ROWS)
    assert len(indices(path)) == 1
    assert indices(path) != [first]


def test_processes_that_start_together_build_one_index_and_workers_map_it(path):
    path.write_text(json.dumps([{"n": n} for n in range(5000)]))
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    started = [context.Process(target=lambda: found.put((load(path)[4999], os.getpid()))) for _ in range(3)]
    for process in started:
        process.start()
    assert all(found.get(timeout=60)[0] == {"n": 4999} for _ in started)
    for process in started:
        process.join()
    assert len(indices(path)) == 1
    pickled = pickle.dumps(load(path))
    assert len(pickled) < 1000
    assert pickle.loads(pickled)[7] == {"n": 7}
    indices(path)[0].unlink()
    with pytest.raises(RunError, match="is gone or damaged"):
        pickle.loads(pickled)


@pytest.mark.parametrize("left", ["of a killed process", "damaged"])
def test_what_is_left_half_written_is_not_taken_for_an_index(path, left):
    load(path)
    (index,) = indices(path)
    whole = index.read_bytes()
    if left == "damaged":
        index.write_bytes(whole[: len(whole) // 2])
    else:
        index.rename(index.with_name(f".staging-{index.name}"))
    assert load(path)[0]["id"] == 1
    assert index.read_bytes() == whole
    assert len(list(index.parent.iterdir())) == 2  # and the lock


def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(path):
    cache = path.parents[1] / "file"
    cache.touch()
    with pytest.raises(RunError, match=r"could not write .*rows.*ADAPTKIT_CACHE"):
        load_rows(path, cache, min_bytes=0)


def test_a_full_disk_is_an_error_that_leaves_nothing_behind(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(RunError, match=r"could not write .*\.arrow.*ADAPTKIT_CACHE"):
            load(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [one.suffix for one in (path.parents[1] / "cache" / "rows").iterdir()] == [".lock"]
    assert load(path)[3] is None


def test_all_rows_may_be_bad(path):
    path = path.with_suffix(".jsonl")
    path.write_text('{"a"\n}\n')
    assert [row.kind for row in load(path)] == ["other", "other"]
