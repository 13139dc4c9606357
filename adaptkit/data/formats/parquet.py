"""Rows of parquet files, by index; row groups are read when they are needed."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adaptkit.data.formats.arrow import Cell, duplicate_fields, to_python, with_cells
from adaptkit.data.media import Media
from adaptkit.errors import DataError

CACHE_BYTES = 256 * 1024**2
MAX_GROUP_BYTES = 4096 * 1024**2

_WIDTHS = {"INT64": 8, "DOUBLE": 8, "INT96": 8, "BOOLEAN": 0.125}
_BATCH_ROWS = 1024


class ParquetRows:
    """The rows of several parquet files, end to end.

    Row groups are decoded whole, and the last ones kept up to `cache_bytes`, at least one. Random access is cheap where
    row groups are small.

    Args:
        paths: The files.
        cache_bytes: Memory of the row groups that are kept.
        max_group_bytes: Memory of one row group, decoded, beyond which it is refused: a file may be far smaller than
            what it unpacks to.

    Raises:
        DataError: One of them is not a parquet file, or there are no rows.
    """

    def __init__(
        self, paths: Sequence[Path], cache_bytes: int = CACHE_BYTES, max_group_bytes: int = MAX_GROUP_BYTES
    ) -> None:
        self._paths = list(paths)
        self._max_group_bytes = max_group_bytes
        self._cache_bytes = cache_bytes
        sizes = [_group_sizes(path) for path in self._paths]
        self._places = [(number, group) for number, groups in enumerate(sizes) for group in range(len(groups))]
        self._starts = [0, *accumulate(chain.from_iterable(sizes))]
        self._file_starts = [0, *accumulate(map(sum, sizes))]
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
            least, most, widest = _sizes_of(file.metadata.row_group(group))
            self._check_size(least, path, group)
            if most <= self._max_group_bytes:
                return file.read_row_group(group, use_threads=False)
            # Values that are stored once may stand for any number of rows: so many at a time as are sure to fit
            rows = max(1, min(_BATCH_ROWS, self._max_group_bytes // max(widest, 1)))
            batches, total = [], 0
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                total += batch.nbytes
                self._check_size(total, path, group)
                batches.append(batch)
            return pa.Table.from_batches(batches, file.schema_arrow)

    def _check_size(self, num_bytes: float, path: Path, group: int) -> None:
        if num_bytes > self._max_group_bytes:
            raise DataError(
                f"{path}: row group {group} takes at least {num_bytes / 1024**2:,.0f} MB of memory, more than the "
                f"limit of {self._max_group_bytes / 1024**2:,.0f} (max_row_group_mb). Write smaller row "
                "groups, or raise it",
                kind="too_large",
            )


def _sizes_of(group: Any) -> tuple[float, float, int]:
    """Bytes that a row group takes at least and at most, and at most those of one row that has no lists."""
    columns = [group.column(i) for i in range(group.num_columns)]
    texts = [column for column in columns if column.physical_type.endswith("BYTE_ARRAY")]
    repeated = [column for column in texts if any("DICTIONARY" in encoding for encoding in column.encodings)]
    fixed = sum(column.num_values * _WIDTHS.get(column.physical_type, 4) for column in columns)
    least = max(fixed, group.total_byte_size)
    most = fixed + group.total_byte_size + sum(c.num_values * c.total_uncompressed_size for c in repeated)
    return least, most, sum(column.total_uncompressed_size for column in repeated)


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
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise DataError(f"{path}: the parquet file cannot be read: {reason}", kind="unreadable_file") from error
