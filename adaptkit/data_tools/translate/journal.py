"""What has been translated so far, kept beside the output, so that a run that was stopped resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from adaptkit.data_tools.translate.engine import Outcome
from adaptkit.errors import DataError, RunError


@dataclass(frozen=True)
class Done:
    """What a journal holds.

    Attributes:
        num_rows: Rows of the input that are done.
        size: Bytes up to the end of the last complete window.
    """

    num_rows: int
    size: int


class Journal:
    """A file with the settings in its first line, and then a line for each row and one for each complete window.

    A window counts once its closing line is there: what an interrupted one left is dropped, so that a run that was
    stopped anywhere translates the same windows as one that was not.

    Args:
        path: The file.
        settings: What the result depends on; a journal with others is refused.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings))

    def open(self) -> int:
        """Begin, or resume: how many rows are done.

        Raises:
            DataError: The journal is of other settings.
            RunError: It cannot be written.
        """
        done = self._done() if self.path.exists() else Done(0, 0)
        if not done.num_rows:
            self._write("wb", [self._settings])
            return 0
        self._check_settings()
        os.truncate(self.path, done.size)
        return done.num_rows

    def _check_settings(self) -> None:
        with self.path.open("rb") as file:
            found = _entry(file.readline())
        if found != self._settings:
            known = found if isinstance(found, dict) else {}
            differs = [key for key, value in self._settings.items() if known.get(key) != value]
            raise DataError(
                f"{self.path} is left of a translation with another {', '.join(differs)}. Give the same, to resume it, "
                "or remove the file, to begin anew."
            )

    def _done(self) -> Done:
        num_rows, size, at = 0, 0, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                at += len(line)
                entry = _entry(line)
                if number == 0:
                    size = at
                elif isinstance(entry, dict) and isinstance(entry.get("done"), int):
                    num_rows, size = entry["done"], at
        return Done(num_rows, size)

    def add(self, outcomes: Sequence[Outcome], num_done: int) -> None:
        """Keep a window.

        Args:
            outcomes: Its rows.
            num_done: Rows that are done with it.
        """
        rows = [asdict(one) for one in outcomes]
        self._write("ab", [*rows, {"done": num_done}])

    def outcomes(self) -> Iterator[Outcome]:
        """The rows that are kept, as `Outcome`s, in order."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                entry = json.loads(line)
                if "row" in entry:
                    yield Outcome(**entry)

    def _write(self, mode: str, entries: Sequence[Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                _append(file, entries)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}") from error


def _append(file: IO[bytes], entries: Sequence[Any]) -> None:
    """Lines of JSON; halves of characters are escaped, which is why all others are, too."""
    file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
    file.flush()
    os.fsync(file.fileno())


def _entry(line: bytes) -> Any:
    """What a whole line holds; None of any other."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
