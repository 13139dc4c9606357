"""Rows of Arrow tables, with embedded media as objects that are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from adaptkit.errors import DataError
from adaptkit.files.text import duplicates, parse_json

_FEW_BITS = {"float": np.float32, "halffloat": np.float16}


class CellRows(Protocol):
    """Rows whose cells can be asked for again."""

    def raw(self, index: int) -> Any:
        """A row as Arrow gives it.

        Raises:
            DataError: It cannot be read.
        """


@dataclass(frozen=True, repr=False)
class Cell:
    """Content embedded in a row. It holds no content itself, so that samples stay small.

    Attributes:
        rows: Where the row comes from.
        index: Which row.
        path: Keys and places that lead to the content.
    """

    rows: CellRows
    index: int
    path: tuple[str | int, ...]

    def __repr__(self) -> str:
        return f"<content of row {self.index} at {'.'.join(map(str, self.path))}>"

    def read(self, size: int = -1) -> bytes:
        """The content, at most `size` bytes of it where that is not negative.

        Raises:
            DataError: The row cannot be read.
        """
        value = self.rows.raw(self.index)
        for step in self.path:
            value = value[step]
        content = bytes(value)
        return content if size < 0 else content[:size]


def duplicate_fields(schema: Any) -> list[str]:
    """Names that several columns have, or several fields of one; as Python's values the last would hide the others."""
    inner = [duplicate_fields(field.type) for field in _fields(schema)]
    return duplicates([field.name for field in _fields(schema)]) + [name for names in inner for name in names]


def _fields(kind: Any) -> list[Any]:
    number = getattr(kind, "num_fields", None)
    return list(kind) if number is None else [kind.field(i) for i in range(number)]


def with_cells(value: Any, make: Callable[[tuple[str | int, ...]], Any], path: tuple[str | int, ...] = ()) -> Any:
    """A row's value with content that is not empty replaced by what `make` says of its place."""
    if isinstance(value, bytes):
        return make(path) if value else value
    if isinstance(value, dict):
        return {key: with_cells(child, make, (*path, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [with_cells(child, make, (*path, i)) for i, child in enumerate(value)]
    return value


def to_python(table: Any, index: int, *, validate: bool = False) -> Any:
    """One row of an Arrow table.

    Values that are stored as JSON, since their kinds differ from row to row, are read. Numbers of few bits are the
    shortest that are stored so: 0.1, and not 0.10000000149.

    Args:
        validate: Check first that the table is sound. One that was mapped from a file as it is may point anywhere.

    Raises:
        DataError: A value has no equal in Python: text that is not Unicode, a time out of range.
    """
    try:
        if validate:
            table.validate(full=True)
        row = table.slice(index, 1).to_pylist()[0]
        return {field.name: _parsed(row[field.name], field.type) for field in table.schema}
    except (ValueError, OverflowError, ArithmeticError, NotImplementedError, LookupError, MemoryError) as error:
        raise DataError(f"a value of the row cannot be read: {error}") from error


def _parsed(value: Any, kind: Any) -> Any:
    """A value with what its Arrow type marks as JSON (`datasets.Json`) parsed, and numbers of few bits shortened."""
    if value is None or not _is_changed(kind):
        return value
    if isinstance(value, float):
        return float(str(_FEW_BITS[str(kind)](value)))
    if isinstance(value, str):
        return parse_json(value, "a value of the row")
    if isinstance(value, dict):
        return {name: _parsed(child, kind.field(name).type) for name, child in value.items()}
    if hasattr(kind, "item_type"):  # a map
        return [(key, _parsed(child, kind.item_type)) for key, child in value]
    return [_parsed(child, kind.value_type) for child in value]


@cache
def _is_changed(kind: Any) -> bool:
    if getattr(kind, "extension_name", None) == "arrow.json" or str(kind) in _FEW_BITS:
        return True
    return any(_is_changed(kind.field(i).type) for i in range(kind.num_fields))
