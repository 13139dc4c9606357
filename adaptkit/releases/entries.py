"""Entries of released files: read one by one, and passed over with a reason where they are malformed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from adaptkit.errors import DataError
from adaptkit.files.text import encoding_of, no_text

T = TypeVar("T")
Located = tuple[str, Any]
"""Where an entry stands, for messages, and the entry."""

_MAX_LINE_CHARS = 1 << 20
_BEGINNING = 4096


class Skipped(Counter[str]):
    """Number of skipped items by reason, and what is wrong with the first of each.

    Attributes:
        first: The message about the first item that was skipped for a reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def note(self, reason: str, error: DataError) -> None:
        """Count an item that an error was raised about."""
        self[reason] += 1
        if str(error):
            self.first.setdefault(reason, str(error))


def read_entries(
    entries: Iterable[Located], read: Callable[[Any, str], T], noun: str, skipped: Skipped | None
) -> Iterator[T]:
    """What is read of each entry.

    Args:
        entries: With their places.
        read: Reads one, and raises `DataError` where it is malformed.
        noun: What they are called, in the plural.
        skipped: Counts malformed ones; None: they are errors.

    Raises:
        DataError: An entry is malformed, and nothing counts it.
    """
    for where, entry in entries:
        try:
            value = read(entry, where)
        except DataError as error:
            if skipped is None:
                raise
            skipped.note(f"malformed {noun}", error)
        else:
            yield value


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of a text file without their ends, with their places; empty ones are passed over.

    Raises:
        DataError: The file cannot be read, or is not text.
    """
    try:
        with path.open("rb") as raw:
            beginning = raw.read(_BEGINNING)
        if (other := no_text(beginning)) is not None:
            raise DataError(f"{path} is {other}")
        with path.open(encoding=encoding_of(beginning)) as file:
            number = 0
            while line := file.readline(_MAX_LINE_CHARS + 1):
                number += 1
                if len(line) > _MAX_LINE_CHARS:
                    raise DataError(f"{path} line {number} is longer than {_MAX_LINE_CHARS:,} characters")
                if line.strip():
                    yield f"{path} line {number}", line.rstrip("\n")
        if not number:
            raise DataError(f"{path} is empty")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x}. Save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def require_folder(folder: Path, layout: str) -> None:
    """Raise `DataError`, saying what was expected, unless it is a folder.

    Args:
        layout: What it should hold, to follow "a folder with".
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}: name a folder with {layout}")
