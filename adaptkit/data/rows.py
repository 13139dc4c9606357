"""Rows of data files, parsed once however many sources read them, as conversations."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from adaptkit.errors import DataError
from adaptkit.interfaces import Message, Sample


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


class RowSource(ABC):
    """Conversations of the rows of a file. Rows are checked when they are read: a bad one spoils only itself.

    Args:
        rows: The rows.
        location: Where they come from, for messages.
        limit: Read the first so many only.
    """

    def __init__(self, rows: Sequence[Any], location: str, limit: int | None = None) -> None:
        self._rows = rows
        self._location = location
        self._length = len(rows) if limit is None else min(limit, len(rows))

    @abstractmethod
    def _read(self, row: Mapping[str, Any]) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Read one row.

        Raises:
            DataError: The row is malformed or its media are missing; the message names file, index and id.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"row {index} of {self._length} in {self._location}")
        row, location = self._rows[index], f"{self._location}[{index}]"
        named = f" (id {row['id']!r:.80})" if isinstance(row, Mapping) and "id" in row else ""
        try:
            if not isinstance(row, Mapping):
                raise DataError(f"a row is an object with keys, not {type(row).__name__}")
            return Sample(str(row.get("id", index)), self._read(row), location)
        except DataError as error:
            raise DataError(f"{location}{named}: {error}") from error


def tag_pattern(tags: Mapping[str, str]) -> re.Pattern[str]:
    """What splits a text at the tags of modalities: pieces at odd places are tags, the others text."""
    return re.compile("(" + ("|".join(map(re.escape, tags.values())) or r"(?!)") + ")")


def existing_medium(path: Path, modality: str) -> Path:
    """The path of a medium, which must be a file.

    Raises:
        DataError: It is not there, or cannot be reached.
    """
    try:
        found = path.is_file()
    except OSError as error:
        raise DataError(f"{modality!r} cannot be reached at {str(path)!r}: {error.strerror}") from error
    if not found:
        raise DataError(f"{modality!r} is missing: no file {str(path)!r}")
    return path


def media_paths(value: Any, name: str, folder: Path) -> list[Path]:
    """The media that a row names, as one path or a list of them.

    Raises:
        DataError: The value is anything else.
    """
    paths = [] if value in (None, "") else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise DataError(f"{name!r} must be a path or a list of paths, not {value!r:.80}")
    return [folder / path for path in paths]
