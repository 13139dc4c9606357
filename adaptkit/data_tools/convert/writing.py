"""Conversations written as a LLaVA file: paths of media, limits, and a summary of what was written and skipped."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.writing import atomic_file
from adaptkit.releases.entries import Skipped

Row = dict[str, Any]
"""An entry of a LLaVA file."""


@dataclass(frozen=True)
class WriteOptions:
    """Which conversations are written, and where their media are said to be.

    Attributes:
        prefix: Folder put before the media's paths.
        strip_folders: Leading folders taken off the dataset's paths.
        media: Folder that the written paths are relative to; media that are not in it are skipped. None: no check.
        limit: Write at most so many conversations.
        seed: Draw them at random from all. None: the first.
    """

    prefix: str = ""
    strip_folders: int = 0
    media: Path | None = None
    limit: int | None = None
    seed: int | None = None


@dataclass
class Summary:
    """What a conversion wrote and skipped.

    Attributes:
        path: The file.
        num_conversations: In it.
        skipped: Number of skipped items, by reason.
    """

    path: Path
    num_conversations: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def count(self, row: Row) -> None:
        """Take a conversation into account that was written."""
        self.num_conversations += 1

    def counts(self) -> Iterator[tuple[int, str, str]]:
        """How many of what were written, as number, singular and plural."""
        yield self.num_conversations, "conversation", "conversations"

    def __str__(self) -> str:
        written = [f"{count:,} {one if count == 1 else many}" for count, one, many in self.counts()]
        return f"{self.path}: {', '.join(written)}. Skipped: {reasons(self.skipped) or 'nothing'}."


def reasons(skipped: Counter[str]) -> str:
    """Why items were skipped, the most frequent reason first, with what is known of the first item of each."""
    first = skipped.first if isinstance(skipped, Skipped) else {}
    examples = {reason: f"; the first: {first[reason]}" if reason in first else "" for reason in skipped}
    return ", ".join(f"{reason} ({count:,}{examples[reason]})" for reason, count in skipped.most_common())


def write_rows(rows: Iterable[Row], options: WriteOptions, summary: Summary) -> None:
    """Write conversations as a LLaVA file, which appears when it is complete.

    Args:
        rows: Read one by one.
        options: How many are written.
        summary: Of the file that is written; its folder is made.

    Raises:
        DataError: There is nothing to write.
    """
    with atomic_file(summary.path) as file:
        for row in _limited(rows, options):
            file.write(("[\n" if not summary.num_conversations else ",\n") + json.dumps(row, ensure_ascii=False))
            summary.count(row)
        if not summary.num_conversations:
            found = f"skipped: {reasons(summary.skipped)}" if summary.skipped else "the dataset is empty"
            raise DataError(f"no conversation to write to {summary.path}; {found}.")
        file.write("\n]\n")


def media_path(file: str, noun: str, options: WriteOptions, skipped: Counter[str]) -> str | None:
    """The path of a medium as it is written; None, and counted, where it is missing or cannot be named.

    Args:
        file: As the dataset has it.
        noun: What media are called, `"pictures"`.
        options: What is done to paths.
        skipped: Number of skipped items, by reason.
    """
    parts = PurePosixPath(file.replace("\\", "/")).parts
    path = PurePosixPath(options.prefix, *parts[min(options.strip_folders, len(parts) - 1) :] if parts else ())
    if not is_unicode(str(path)):
        skipped[f"{noun} with names that are not Unicode"] += 1
    elif not parts or ".." in path.parts or (path.is_absolute() and not PurePosixPath(options.prefix).is_absolute()):
        skipped[f"{noun} outside the media folder"] += 1
    elif options.media is not None and not _is_file(options.media / path):
        skipped[f"{noun} that are not there"] += 1
    else:
        return str(path)
    return None


def is_unicode(text: str) -> bool:
    """Whether it can be written: JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _limited(rows: Iterable[Row], options: WriteOptions) -> Iterable[Row]:
    """The first rows, or as many drawn at random, every choice equally likely, in their order."""
    if options.limit is None:
        return rows
    if options.seed is None:
        return (row for _, row in zip(range(options.limit), rows))
    rng = random.Random(options.seed)
    drawn: list[tuple[int, Row]] = []
    for number, row in enumerate(rows):
        if number < options.limit:
            drawn.append((number, row))
        elif (place := rng.randrange(number + 1)) < options.limit:
            drawn[place] = (number, row)
    return (row for _, row in sorted(drawn, key=lambda pair: pair[0]))
