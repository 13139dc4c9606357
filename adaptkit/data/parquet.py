"""Rows of parquet files, by index; row groups are read when they are needed."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adaptkit.data.arrow import Cell, duplicate_fields, to_python, with_cells
from adaptkit.data.media import Media
from adaptkit.errors import DataError

CACHE_BYTES = 256 * 1024**2


class ParquetRows:
    """The rows of several parquet files, end to end.

    Row groups are decoded whole, and the last ones kept up to `cache_bytes`, at least one. Random access is cheap where
    row groups are small.

    Args:
        paths: The files.
        cache_bytes: Memory of the row groups that are kept.

    Raises:
        DataError: One of them is no parquet file, or there are no rows.
    """

    def __init__(self, paths: Sequence[Path], cache_bytes: int = CACHE_BYTES) -> None:
        self._paths = list(paths)
        self._cache_bytes = cache_bytes
        self._places: list[tuple[int, int]] = []  # file and row group
        sizes: list[int] = []
        for number, path in enumerate(self._paths):
            for group, size in enumerate(_group_sizes(path)):
                self._places.append((number, group))
                sizes.append(size)
        self._starts = [0, *accumulate(sizes)]
        self._file_starts = [0, *accumulate(_per_file(self._places, sizes, len(self._paths)))]
        if not len(self):
            raise DataError(f"{self._paths[0]}: the dataset is empty")
        self._forget()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:
        """A row; content in it is a `Cell`.

        Raises:
            DataError: Its row group is damaged, or a value cannot be read.
        """
        return with_cells(self.raw(index), lambda path: Cell(self, index, path))

    def raw(self, index: int) -> Any:
        """A row as Arrow gives it.

        Raises:
            DataError: Its row group is damaged, or a value cannot be read.
        """
        place = bisect_right(self._starts, index) - 1
        return to_python(self._group(place), index - self._starts[place])

    def where(self, index: int) -> str:
        """File and row of a row."""
        number = self._file_of(index)
        return f"{self._paths[number]}[{index - self._file_starts[number]}]"

    def media(self, index: int) -> Media:
        """Where the media of a row are: beside its file."""
        return Media(self._paths[self._file_of(index)].parent)

    def _file_of(self, index: int) -> int:
        return bisect_right(self._file_starts, index) - 1

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_groups", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def _group(self, place: int) -> Any:
        with self._lock:
            if place not in self._groups:
                self._groups[place] = self._read_group(*self._places[place])
                while len(self._groups) > 1 and sum(t.nbytes for t in self._groups.values()) > self._cache_bytes:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(place)
            return self._groups[place]

    def _read_group(self, number: int, group: int) -> Any:
        path = self._paths[number]
        # One thread: worker processes are forked, and the pool of the parent does not follow them
        with _readable(path), pq.ParquetFile(path) as file:
            return file.read_row_group(group, use_threads=False)


def _group_sizes(path: Path) -> list[int]:
    with _readable(path), pq.ParquetFile(path) as file:
        groups = file.metadata
        doubled = duplicate_fields(file.schema_arrow)
        if doubled:
            raise DataError(f"{path}: several columns are named {doubled[0]!r:.80}: give each a name of its own")
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    if any(size < 0 for size in sizes):
        message = f"{path}: the parquet file is damaged: it says that a row group has {min(sizes)} rows"
        raise DataError(message, kind="unreadable_file")
    return sizes


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Arrow's many errors as ours."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, NotImplementedError, MemoryError) as error:
        message = f"{path}: the parquet file cannot be read: {_first_line(error)}"
        raise DataError(message, kind="unreadable_file") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _per_file(places: Sequence[tuple[int, int]], sizes: Sequence[int], num_files: int) -> list[int]:
    totals = [0] * num_files
    for (number, _), size in zip(places, sizes):
        totals[number] += size
    return totals
