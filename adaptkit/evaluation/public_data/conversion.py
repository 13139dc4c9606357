"""Released layouts as parquet that is shaped like the hub's dataset, made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, RunError
from adaptkit.evaluation.public_data.layouts import Layout
from adaptkit.evaluation.public_data.release import Release, is_unchanged
from adaptkit.files.json_stream import Progress
from adaptkit.files.paths import cache_dir
from adaptkit.files.writing import staged_folder, write_json

CONVERTED = ".adaptkit"
"""Folder below the data folder for what is converted."""
_VERSION = 1
"""Goes up with every change in what is written."""
_ROWS_A_BATCH = 256
_SOURCES = "sources.json"


def converted(
    layout: Layout, data_dir: Path, dataset: str, config: str | None, split: str, progress: Progress | None = None
) -> Path | None:
    """The parquet file of one split of a released layout, written anew where anything that it was made of changed.

    Returns:
        None where the data folder has no such release, or the release no such split.

    Raises:
        DataError: The release is malformed, or files that its rows name are missing.
    """
    found = layout.find(data_dir, config, split)
    if found is None:
        return None
    name = f"{dataset.replace('/', '--')}/{config or 'default'}/{split}"
    for root in _roots(data_dir):
        folder = root / name
        if _is_current(folder, found):
            return folder / f"{split}.parquet"
    release = Release(found[0], data_dir, layout.files)
    module = import_module(f"adaptkit.evaluation.public_data.layouts.{layout.module}")
    kind = layout.kind or config or ""
    rows = _counted(module.rows(release, kind, split, found[1]), progress, f"{dataset}, {split}")
    return _write(name, data_dir, module.features(kind), rows, split, lambda: _sources(release, found))


def _roots(data_dir: Path) -> list[Path]:
    """Where converted data may be: in the data folder, or, if that cannot be written, in the user's cache."""
    own = cache_dir() / "public_data" / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return [data_dir / CONVERTED, own]


def _write(
    name: str, data_dir: Path, features: Any, rows: Iterator[Any], split: str, sources: Callable[[], Any]
) -> Path:
    inside, own = _roots(data_dir)
    root = inside if os.access(data_dir, os.W_OK) and (not inside.exists() or os.access(inside, os.W_OK)) else own
    first = next(rows, None)
    if first is None:
        raise DataError(f"{data_dir}: the release of {name} has no rows")
    with staged_folder(root / name, hint="Choose another place for what is converted with ADAPTKIT_CACHE.") as folder:
        _write_parquet(folder / f"{split}.parquet", features, chain([first], rows))
        write_json(folder / _SOURCES, sources())
    return root / name / f"{split}.parquet"


def _write_parquet(path: Path, features: Any, rows: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = features.arrow_schema
    with parquet.ParquetWriter(path, schema) as writer:
        rows = iter(rows)
        while batch := list(islice(rows, _ROWS_A_BATCH)):
            try:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                raise DataError(f"a value has another type than the hub's dataset has ({error})") from error
            except OSError as error:
                raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _sources(release: Release, found: tuple[Path, list[str]]) -> dict[str, Any]:
    return {"version": _VERSION, "folder": str(found[0]), "files": found[1], "used": release.used}


def _is_current(folder: Path, found: tuple[Path, list[str]]) -> bool:
    try:
        sources = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = (sources.get("version"), sources.get("folder"), sources.get("files")) == (_VERSION, str(found[0]), found[1])
    return same and is_unchanged(sources["used"])


def _counted(rows: Iterable[Any], progress: Progress | None, what: str) -> Iterator[Any]:
    for number, row in enumerate(rows, start=1):
        if progress is not None and number % _ROWS_A_BATCH == 0:
            progress(number, 0, f"converting {what}")
        yield row
