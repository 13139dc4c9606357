"""Rows of JSON files, each as the bytes that it stands in, one after the other: never all of a file in memory.

ijson reads lists in pieces too, but refuses what Python's `json` writes and reads (`NaN`, integers above 64 bits), and
does not say on which line and column of a file it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from adaptkit.data.media import shown
from adaptkit.errors import DataError
from adaptkit.files.json_scanner import JsonScanner
from adaptkit.files.text import decode_pieces, decode_text, encoding_of, no_text, parse_json

MAX_ROW_BYTES = 64 * 1024**2
"""A row may have pictures in base64."""

LINES = (".jsonl", ".ndjson")
"""Endings of files with a row a line."""

Row = bytes | DataError
"""A row's JSON, which is valid, in UTF-8; or what is wrong with it."""

_BEGINNING = 4096
_OPENS = re.compile(r"\{\s*\n")
_SPEAKER = {"from", "role"}


class MoreThanOneValueError(DataError):
    """A file is not one list, but values one after the other."""


def scan_rows(path: Path, max_row_bytes: int = MAX_ROW_BYTES, *, in_lines: bool | None = None) -> Iterator[Row]:
    """Rows of a file of JSON: a list of them, or a row a line, whatever the file's ending says.

    Only the row of an unreadable line is bad, and one that is too large: the error replaces it.

    Args:
        path: The file.
        max_row_bytes: A larger row is not read, but an error in its place.
        in_lines: Whether it has a row a line; by default its beginning and its ending say.

    Raises:
        DataError: The file is malformed or has no rows.
        MoreThanOneValueError: It has to be read as a row a line.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if in_lines is None:
            in_lines = _is_in_lines(path, file.read(_BEGINNING))
            file.seek(0)
        empty = True
        for row in _rows_of_lines(file, path, max_row_bytes) if in_lines else _rows_of_list(file, path, max_row_bytes):
            empty = False
            yield row
    if empty:
        raise DataError(f"{path}: the dataset is empty")


def _is_in_lines(path: Path, beginning: bytes) -> bool:
    other = no_text(beginning) if beginning.strip() else "empty"
    if other is not None:
        raise DataError(f"{path} is {other}")
    first = beginning.decode(encoding_of(beginning), errors="ignore").lstrip()
    # An object whose first line opens it alone is not a row of JSON Lines
    return path.suffix.lower() in LINES and not first.startswith("[") and not _OPENS.match(first)


# -- a row a line ----------------------------------------------------------------------------------------------------


def _rows_of_lines(file: BinaryIO, path: Path, max_row_bytes: int) -> Iterator[Row]:
    encoding = encoding_of(file.read(4))
    file.seek(0)
    is_utf8 = encoding in ("utf-8", "utf-8-sig")
    lines = _lines(file, max_row_bytes) if is_utf8 else _lines_of_text(decode_pieces(file, str(path)))
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row_of_line(line, number, max_row_bytes)


def _lines(file: BinaryIO, max_row_bytes: int) -> Iterator[bytes]:
    """The lines of a file; of one that is too long no more than shows that."""
    while line := file.readline(max_row_bytes + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(max_row_bytes)
        yield line


def _lines_of_text(pieces: Iterator[str]) -> Iterator[bytes]:
    rest: list[str] = []
    for piece in pieces:
        *ends, last = piece.split("\n")
        for end in ends:
            yield "".join([*rest, end]).encode()
            rest = []
        rest.append(last)
    yield "".join(rest).encode()


def _row_of_line(line: bytes, number: int, max_row_bytes: int) -> Row:
    where = f"line {number}"
    if len(line) > max_row_bytes:
        return too_large(where, max_row_bytes)
    try:
        text = decode_text(line, where, first_line=number)
        parse_json(text, where)
    except DataError as error:
        return DataError(str(error), kind=error.kind)
    return text.strip().encode()


# -- a list ----------------------------------------------------------------------------------------------------------


def _rows_of_list(file: BinaryIO, path: Path, max_row_bytes: int) -> Iterator[Row]:
    scanner = JsonScanner(decode_pieces(file, str(path)), str(path))
    if scanner.peek() == "[":
        for _ in scanner.entries():
            yield _entry(scanner, max_row_bytes)
        _check_end(scanner, path)
        return
    row = scanner.value(max_row_bytes)
    _check_end(scanner, path)
    if row is None:
        raise DataError(
            f"{path}: a data file is a JSON list of rows, not one object of more than {max_row_bytes:,} bytes. Write "
            "the list of its rows alone; `adaptkit data convert` makes conversations of COCO's layout"
        )
    if scanner.doubled is not None:
        raise DataError(f"{path}: an object has the key {scanner.doubled!r:.80} twice: keep one of them")
    value, text = row
    if not isinstance(value, dict) or not any(are_turns(value.get(key)) for key in ("conversations", "messages")):
        raise DataError(f"{path}: a data file is a JSON list of rows, not {type(value).__name__}{_remedy(value)}")
    yield text.encode()


def _entry(scanner: JsonScanner, max_row_bytes: int) -> Row:
    found = scanner.value(max_row_bytes)
    raw = b"" if found is None else found[1].encode()
    if found is None or len(raw) > max_row_bytes:
        return too_large("the row", max_row_bytes)
    if scanner.doubled is not None:
        return DataError("an object in the row has a key twice: keep one of them")
    return raw


def _check_end(scanner: JsonScanner, path: Path) -> None:
    if not scanner.at_end():
        raise MoreThanOneValueError(f"{path}: more than one value")


def too_large(where: str, max_row_bytes: int) -> DataError:
    """Why a row is not read that is larger than it may be."""
    return DataError(
        f"{where} is longer than {max_row_bytes:,} bytes, the limit of a row (max_row_mb): keep media in files, or "
        "raise it",
        kind="too_large",
    )


def are_turns(value: Any) -> bool:
    """Whether a value is a list of turns of a conversation."""
    return isinstance(value, list) and bool(value) and all(isinstance(t, dict) and _SPEAKER & t.keys() for t in value)


def _remedy(value: Any) -> str:
    """What to do about a file whose JSON is not a list."""
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("annotations"), list):
        return ". This is COCO's layout: `adaptkit data convert` makes conversations of it"
    inside = [
        name for name, inner in value.items() if isinstance(inner, list) and any(isinstance(i, dict) for i in inner)
    ]
    if len(inside) == 1:
        return f". Write the list under {inside[0]!r:.80} alone"
    if value and all(isinstance(inner, dict) for inner in value.values()):
        return f". It has {len(value):,} objects by name: write them as a list, each with its name under 'id'"
    return f". It is one object with {shown(list(value))}: a row stands in a list, [{{…}}]"
