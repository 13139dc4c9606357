"""A folder of files in a published layout: bounded reading, and errors that name file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from adaptkit.errors import DataError, first_few, nearest_name
from adaptkit.files.text import decode_text, no_text, parse_json

MAX_FILE_BYTES = 1 << 30
"""Released files of these benchmarks are at most half as large."""
_MAX_NUMBER = 10**12
_MAX_CELL = 2**31 - 1
"""Characters: a cell may hold a picture in base64."""

Row = tuple[str, dict[str, Any]]
"""A row, and where it stands, for messages."""
T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass
class FileFolder:
    """The files of a dataset, or of a benchmark and the answers to it.

    Attributes:
        path: The folder.
        layout: Each file that belongs to the layout, and what it holds.
        notes: What a reader of the results should know: answers that are missing, given twice and the like.
    """

    path: Path
    layout: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether a file or folder is there."""
        return (self.path / name).exists()

    def names(self, place: str = "", ending: str = "") -> list[str]:
        """Names of what lies in the folder, or in one inside it, sorted."""
        folder = self.path / place
        try:
            return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(ending))
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {error.strerror}. {self.needs()}") from error

    def needs(self) -> str:
        """One sentence on the files of the layout."""
        return f"The layout is {'; '.join(f'{name} ({what})' for name, what in self.layout.items())}."

    def text(self, name: str) -> str:
        """The text of a file: UTF-8, or what its byte order mark says.

        Raises:
            DataError: It is missing, unreadable, larger than `MAX_FILE_BYTES` or not text.
        """
        path = self.path / name
        if not path.is_file():
            raise DataError(self._missing(path))
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise DataError(f"{path} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        other = no_text(raw)
        if other is not None:
            raise DataError(f"{path} is {other}")
        return decode_text(raw, str(path))

    def lines(self, name: str) -> Iterator[tuple[str, str]]:
        """Each line with its line end, which is always `\\n`, and where it stands; empty lines are passed over."""
        for number, line in enumerate(io.StringIO(self.text(name), newline=None), start=1):
            if line != "\n":
                yield f"{self.path / name} line {number}", line

    def rows(self, name: str, /, **columns: type | tuple[type, ...]) -> list[Row]:
        """The objects of a file of JSON Lines.

        Args:
            name: The file.
            columns: What each row must have, and of which type.
        """
        rows = [(where, parse_json(line, where)) for where, line in self.lines(name) if line.strip()]
        if not rows:
            raise DataError(f"{self.path / name} holds no rows")
        for where, row in rows:
            check(row, where, **columns)
        return rows

    def json(self, name: str, kind: type[T]) -> T:
        """The object or list in a JSON file."""
        value = parse_json(self.text(name), str(self.path / name))
        if not isinstance(value, kind):
            raise DataError(f"{self.path / name} must hold {_named(kind)}, not {_named(type(value))}. {self.needs()}")
        return value

    def cells(self, name: str, delimiter: str = ",") -> list[tuple[str, list[str]]]:
        """The rows of a table, each cell as text, whatever it looks like."""
        csv.field_size_limit(_MAX_CELL)
        path = self.path / name
        reader = csv.reader(io.StringIO(self.text(name), newline=""), delimiter=delimiter, strict=True)
        try:
            rows = [(f"{path} line {reader.line_num}", cells) for cells in reader if cells]
        except csv.Error as error:
            raise DataError(f"{path} line {reader.line_num}: {error}") from error
        if not rows:
            raise DataError(f"{path} holds no rows")
        return rows

    def table(self, name: str, *columns: str, delimiter: str = ",") -> list[Row]:
        """The rows of a table with a header, by column; those named must be there."""
        (_, header), *rows = self.cells(name, delimiter)
        missing = [column for column in columns if column not in header]
        if missing or not rows:
            what = (
                f"lacks the column {', '.join(missing)}; it has {first_few(header, 20)}" if missing else "has no rows"
            )
            raise DataError(f"{self.path / name} {what}")
        for where, cells in rows:
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        return [(where, dict(zip(header, cells, strict=True))) for where, cells in rows]

    def by_key(
        self, rows: Iterable[tuple[str, KeyT, T]], known: Iterable[KeyT], what: str, asked: Iterable[KeyT] | None = None
    ) -> dict[KeyT, T]:
        """Answers by question; of several to one question the last counts, as in the official tools.

        Args:
            rows: Where the answer stands, its question, and what is kept of it.
            known: All questions.
            what: What questions go by, in the singular: `"index"`.
            asked: Those that should be answered; by default all.

        Raises:
            DataError: An answer is to no known question.
        """
        questions = set(known)
        found: dict[KeyT, T] = {}
        num_rows = 0
        for where, key, value in rows:
            if key not in questions:
                nearest = nearest_name(str(key), map(str, questions))
                hint = f" Did you mean {nearest!r}?" if nearest else ""
                raise DataError(f"{where}: no question has the {what} {key!r}.{hint}")
            found[key] = value
            num_rows += 1
        if num_rows > len(found):
            self.notes.append(f"{num_rows - len(found)} answers are replaced by a later one to the same question")
        wanted = questions if asked is None else set(asked)
        missing = len(wanted - found.keys())
        if missing:
            self.notes.append(f"{missing} of {len(wanted)} questions have no answer")
        return found

    def _missing(self, path: Path) -> str:
        present = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        nearest = get_close_matches(path.name, present, n=1, cutoff=0.75)
        if nearest:
            return f"{path} is missing. Is it {nearest[0]!r}, which is there? {self.needs()}"
        return f"{path} is missing; {path.parent} holds {first_few(present, 10) or 'nothing'}. {self.needs()}"


def check(row: Any, where: str, /, **columns: type | tuple[type, ...]) -> None:
    """Raise `DataError` unless a row is an object that has columns of these types; `bool` is not a number."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: an object is needed, not {_named(type(row))}")
    for name, kinds in columns.items():
        if name not in row:
            raise DataError(f"{where}: {name!r} is missing; there is {first_few(list(row), 10) or 'nothing'}")
        value = row[name]
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and not {bool, object} & set(allowed)):
            needed = " or ".join(map(_named, allowed))
            raise DataError(f"{where}: {name!r} must be {needed}, not {_named(type(value))}")
        if float in allowed and isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise DataError(f"{where}: {name!r} is too large a number")


def check_numbers(row: Mapping[str, Any], where: str, *names: str, length: int) -> None:
    """Raise `DataError` unless columns are lists of so many numbers."""
    for name in names:
        value = row[name]
        numbers = isinstance(value, list) and all(
            isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= _MAX_NUMBER
            for number in value
        )
        if not numbers or len(value) != length:
            raise DataError(f"{where}: {name!r} must be a list of {length} finite numbers")


def mean(values: Iterable[float]) -> float:
    """Their sum by their number; 0 of none."""
    items = list(values)
    return sum(items) / len(items) if items else 0.0


_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


def _named(kind: type) -> str:
    return _NAMES.get(kind, "null" if kind is type(None) else kind.__name__)
