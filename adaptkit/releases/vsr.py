"""Visual Spatial Reasoning: sentences about pictures, each true or false."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import check
from adaptkit.files.text import parse_json
from adaptkit.releases.entries import Skipped, read_entries, read_lines

YES_NO = "Is the following statement about the image true? {}"
"""How a sentence is asked; there is no standard prompt."""
TRUE_FALSE = "Is the following statement about the image true or false? {}"


@dataclass(frozen=True)
class Statement:
    """A sentence about a picture.

    Attributes:
        id: Name of the file and number of the line, from 0.
        file: The picture's name.
        text: The sentence.
        is_true: Whether it holds.
        relation: Between subject and object, such as `on top of`.
    """

    id: str
    file: str
    text: str
    is_true: bool
    relation: str = ""


def read_vsr(path: Path, skipped: Skipped | None = None) -> Iterator[Statement]:
    """Statements of `train.jsonl`, `dev.jsonl`, `test.jsonl` or `all_vsr_validated_data.jsonl`.

    Raises:
        DataError: The file cannot be read; or, where nothing counts them, a line is malformed.
    """

    def read(entry: tuple[int, str], where: str) -> Statement:
        number, line = entry
        row: Any = parse_json(line, where)
        check(row, where, image=str, caption=str, label=int)
        if row["label"] not in (0, 1):
            raise DataError(f"{where}: 'label' is {row['label']}; it is 0 or 1")
        relation = row.get("relation")
        known = relation if isinstance(relation, str) else ""
        return Statement(f"{path.stem}_{number}", row["image"], row["caption"], bool(row["label"]), known)

    lines = ((where, (number, line)) for number, (where, line) in enumerate(read_lines(path)))
    yield from read_entries(lines, read, "statements", skipped)
