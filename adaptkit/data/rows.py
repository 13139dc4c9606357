"""Rows of data files in JSON, parsed once however many sources read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from adaptkit.errors import DataError


class Rows(list[Any]):
    """A list that can be referred to weakly."""


_loaded: WeakValueDictionary[tuple[str, int, int], Rows] = WeakValueDictionary()


def load_rows(path: Path) -> Rows:
    """Rows of a `.json` file, which is a list, or of a `.jsonl` file, a row a line.

    Sources of the same file share them, so that files of gigabytes are parsed once.

    Raises:
        DataError: The file cannot be read, is malformed or has no rows.
    """
    try:
        status = path.stat()
        key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
        rows = _loaded.get(key)
        if rows is None:
            rows = _loaded[key] = _parse_rows(path)
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror}") from error
    return rows


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: It is malformed; `where` says where it stands.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def _parse_rows(path: Path) -> Rows:
    if path.suffix.lower() == ".jsonl":
        with path.open("rb") as file:
            rows = [parse_json(line, f"{path}:{i}") for i, line in enumerate(file, start=1) if line.strip()]
    else:
        rows = parse_json(path.read_bytes(), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: a data file is a JSON list of rows, not {type(rows).__name__}")
    if not rows:
        raise DataError(f"{path}: the dataset is empty")
    return Rows(rows)
