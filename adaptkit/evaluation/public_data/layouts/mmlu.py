"""MMLU's release: a table without a header for each subject and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.official.mmlu import LETTERS
from adaptkit.evaluation.public_data.release import Release


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import ClassLabel, Features, List, Value

    text = Value("string")
    answer = ClassLabel(names=list(LETTERS))
    return Features({"question": text, "subject": text, "choices": List(text), "answer": answer})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every cell is text, whatever it looks like."""
    for where, cells in release.cells(files[0]):
        answer = cells[-1].strip()
        if len(cells) != 6 or len(answer) != 1 or answer not in LETTERS:
            raise DataError(f"{where}: six cells are needed: question, four choices, and a letter of {LETTERS}")
        yield {"question": cells[0], "subject": config, "choices": cells[1:5], "answer": LETTERS.index(answer)}
