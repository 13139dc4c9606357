"""C-Eval's release: a table with a header for each subject and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.official.ceval import LETTERS
from adaptkit.evaluation.public_data.release import Release


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Features, Value

    names = ("question", *LETTERS, "answer", "explanation")
    return Features({"id": Value("int32"), **{name: Value("string") for name in names}})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The test split has no answers, and only the development split explains them."""
    needed = ["id", "question", *LETTERS, *(["answer"] if split != "test" else [])]
    for where, row in release.table(files[0], *needed):
        answer = row.get("answer", "").strip()
        if split != "test" and (len(answer) != 1 or answer not in LETTERS):
            raise DataError(f"{where}: the answer must be a letter of {LETTERS}, not {answer!r:.40}")
        try:
            number = int(row["id"])
        except ValueError:
            raise DataError(f"{where}: the id must be a whole number, not {row['id']!r:.40}") from None
        kept = {name: row[name] for name in ("question", *LETTERS)}
        yield {"id": number, **kept, "answer": answer, "explanation": row.get("explanation", "")}
