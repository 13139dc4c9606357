"""Rows that come forwards only."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from adaptkit.errors import DataError

WINDOW = 64


class StreamRows:
    """The first so many rows of a stream, by index.

    Reading goes forwards; the last few rows are kept, so that going back a little costs nothing. An earlier row opens
    the stream anew and skips to it, as a new epoch and a resumed run do. Each process reads a stream of its own.

    Args:
        open_rows: Begins the stream; a `DataError` in the place of a row is raised when that row is asked for.
        num_samples: Rows of one epoch.
        location: What to call the stream in messages.
        window: Rows that are kept.
    """

    is_stream = True

    def __init__(
        self, open_rows: Callable[[], Iterator[Any]], num_samples: int, location: str, window: int = WINDOW
    ) -> None:
        self._open_rows = open_rows
        self._num_samples = num_samples
        self._location = location
        self._window = window
        self._end: tuple[int, DataError] | None = None  # number of rows, and why there are no more
        self._forget()

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Any:
        """A row.

        Raises:
            DataError: It is bad, or the stream has ended before it.
        """
        if self._process != os.getpid():
            self._forget()  # a position in a file that is open in two processes moves under both
        if self._end is not None and index >= self._end[0]:
            raise _copy(self._end[1])
        if index not in self._kept and index < self._next:
            self._forget()
        while index not in self._kept:
            self._advance()
        row = self._kept[index]
        if isinstance(row, DataError):
            raise _copy(row)
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None, "_process": 0}

    def _forget(self) -> None:
        self._process = os.getpid()
        self._rows: Iterator[Any] | None = None
        self._next = 0
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def _advance(self) -> None:
        if self._rows is None:
            self._rows = self._open_rows()
        try:
            row = next(self._rows)
        except StopIteration:
            read, wanted = self._next, self._num_samples
            ended = DataError(f"the stream {self._location} ended after {read} rows, but num_samples says {wanted}")
            self._end = read, ended
            raise _copy(ended) from None
        except DataError as error:
            self._end = self._next, error
            raise
        self._kept[self._next] = row
        self._next += 1
        if len(self._kept) > self._window:
            self._kept.popitem(last=False)


def _copy(error: DataError) -> DataError:
    """The same again: raising one object twice would lengthen its traceback each time."""
    return DataError(str(error), kind=error.kind)
