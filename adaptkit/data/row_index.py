"""Rows of JSON files by index: their JSON in Arrow tables, which all processes map into memory.

A file is read once. A large one becomes an Arrow file in the folder of caches, under a name that says the file's path,
size and times: a changed file has another. Who builds it holds a lock; others wait, and then find it. It is renamed to
its place when it is complete, so that a killed process leaves nothing that could be taken for it.
"""

from __future__ import annotations

import json
import os
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from filelock import FileLock

from adaptkit.data.json_rows import MAX_ROW_BYTES, MoreThanOneValueError, Row, scan_rows
from adaptkit.errors import DataError, RunError
from adaptkit.files.paths import cache_dir as usual_cache_dir
from adaptkit.files.writing import atomic_file, explain_write_error

MIN_BYTES = 16 * 1024**2
"""Files below are read faster than they are found in a cache; each process has their rows in memory, as they stand."""

_VERSION = 1
_BATCH_BYTES = 8 * 1024**2
_BATCH_ROWS = 1 << 16
_HINT = "Set ADAPTKIT_CACHE to a folder with room for the data's JSON files."
_SCHEMA = pa.schema([("json", pa.large_binary()), ("error", pa.string()), ("kind", pa.string())])


class JsonRows(Sequence[Any]):
    """The rows of a file of JSON, parsed when they are asked for; a bad one is a `DataError` in its place.

    Args:
        table: With the row's JSON, or an error and its kind.
        path: The Arrow file that the table is mapped from; None where it is in memory.
        start: Address at which the file is mapped.
    """

    def __init__(self, table: Any, path: Path | None = None, start: int = 0) -> None:
        self._table = table
        self._path = path
        texts, self._errors, self._kinds = table.columns
        self._starts = [0, *accumulate(map(len, texts.chunks))]
        self._offsets = [np.frombuffer(chunk.buffers()[1], np.int64) for chunk in texts.chunks]
        self._texts = [chunk.buffers()[2] for chunk in texts.chunks]
        self._file: int | None = None
        if path is not None and hasattr(os, "pread"):
            # Texts that were read through the mapping would count as memory of every process
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._places = [0 if text is None else text.address - start for text in self._texts]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        """A row, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        chunk = bisect_right(self._starts, place) - 1
        first, last = self._offsets[chunk][place - self._starts[chunk] :][:2].tolist()
        if first == last:  # no JSON is empty
            return DataError(self._errors[place].as_py(), kind=self._kinds[place].as_py())
        try:
            return json.loads(self._text(chunk, first, last))
        except (ValueError, RecursionError):  # it was valid
            return DataError(f"the row is damaged in {self._path}: delete that file, and it is made again")

    def _text(self, chunk: int, first: int, last: int) -> bytes:
        if self._file is None:
            return bytes(memoryview(self._texts[chunk])[first:last])
        return os.pread(self._file, last - first, self._places[chunk] + first)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the file itself
        return (JsonRows, (self._table, None)) if self._path is None else (_mapped_again, (self._path,))


_opened: WeakValueDictionary[tuple[str, ...], JsonRows] = WeakValueDictionary()


def load_rows(
    path: Path,
    cache_dir: Path | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
    what: str = "data file",
    *,
    min_bytes: int = MIN_BYTES,
) -> JsonRows:
    """Rows of a file of JSON: a list of them, or a row a line. Sources of the same file share them.

    Args:
        path: The file.
        cache_dir: Folder for what can be made again, where not the usual one.
        max_row_bytes: A larger row is bad.
        what: What to call the file in messages.
        min_bytes: A smaller file is read by each process.

    Raises:
        DataError: The file cannot be read, is malformed or has no rows.
        RunError: The cache cannot be written.
    """
    try:
        place, state = file_identity(path)
        key = (f"{place} {max_row_bytes}", f"{state} {_VERSION}")
        rows = _opened.get(key)
        if rows is None:
            if path.stat().st_size < min_bytes:
                rows = JsonRows(_in_memory(path, max_row_bytes))
            else:
                names = (sha256(part.encode(errors="surrogatepass")).hexdigest()[:16] for part in key)
                rows = _indexed(
                    path, (cache_dir or usual_cache_dir()) / "rows" / f"{'-'.join(names)}.arrow", max_row_bytes
                )
            _opened[key] = rows
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror}") from error
    return rows


def file_identity(path: Path) -> tuple[str, str]:
    """Where a file is, and what differs once it has changed.

    Raises:
        OSError: It is not there.
    """
    status = path.stat()
    return str(path.resolve()), f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _in_memory(path: Path, max_row_bytes: int) -> Any:
    try:
        return pa.Table.from_batches(_batches(scan_rows(path, max_row_bytes)))
    except MoreThanOneValueError:
        return pa.Table.from_batches(_batches(scan_rows(path, max_row_bytes, in_lines=True)))


def _indexed(path: Path, index: Path, max_row_bytes: int) -> JsonRows:
    rows = _mapped(index)
    if rows is not None:
        return rows
    with _alone(index):
        rows = _mapped(index)
        if rows is None:
            _write(path, index, max_row_bytes)
            rows = _mapped(index)
            _remove_earlier(index)
    assert rows is not None, "it was written"
    return rows


@contextmanager
def _alone(index: Path) -> Iterator[None]:
    """Wait until no other process builds an index of the same file."""
    lock = FileLock(index.with_name(f"{_of_path(index)}.lock"))
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise RunError(explain_write_error(error, index, _HINT)) from error
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, index: Path, max_row_bytes: int) -> None:
    before = path.stat()
    for in_lines in (None, True):
        with suppress(MoreThanOneValueError), atomic_file(index, "wb", hint=_HINT) as file:
            with pa.ipc.new_file(file, _SCHEMA) as writer:
                for batch in _batches(scan_rows(path, max_row_bytes, in_lines=in_lines)):
                    writer.write_batch(batch)
            after = path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise DataError(f"{path} changed while it was read: try again once it is complete")
            return


def _batches(rows: Iterable[Row]) -> Iterator[Any]:
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += 0 if isinstance(row, DataError) else len(row)
        if size >= _BATCH_BYTES or len(part) >= _BATCH_ROWS:
            yield _batch(part)
            part, size = [], 0
    if part:
        yield _batch(part)


def _batch(rows: Sequence[Row]) -> Any:
    errors = [row if isinstance(row, DataError) else None for row in rows]
    columns = [
        [None if isinstance(row, DataError) else row for row in rows],
        [None if error is None else str(error).encode(errors="backslashreplace") for error in errors],
        [None if error is None else error.kind for error in errors],
    ]
    return pa.record_batch([pa.array(c, field.type) for c, field in zip(columns, _SCHEMA)], schema=_SCHEMA)


def _mapped(index: Path) -> JsonRows | None:
    """The rows of an Arrow file; None where it is not there, or damaged."""
    try:
        mapping = pa.memory_map(str(index))
        table = pa.ipc.open_file(mapping).read_all()
        mapping.seek(0)
        return JsonRows(table, index, mapping.read_buffer().address)
    except (OSError, pa.ArrowInvalid, ValueError):
        return None


def _mapped_again(index: Path) -> JsonRows:
    rows = _mapped(index)
    if rows is None:
        raise RunError(f"{index} is gone or damaged: a data file changed while it was in use. Start again.")
    return rows


def _remove_earlier(index: Path) -> None:
    """Delete what was made of the same path before it changed; who has it mapped keeps it."""
    for other in index.parent.glob(f"{_of_path(index)}-*"):
        if other != index:
            with suppress(OSError):
                other.unlink()


def _of_path(index: Path) -> str:
    return index.name.partition("-")[0]
