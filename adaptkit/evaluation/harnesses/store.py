"""Answers that are kept as they come, so that an evaluation that was stopped can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adaptkit.errors import RunError

ANSWERS_FILE = "answers.jsonl"


class AnswerStore:
    """Answers by a hash of everything that they depend on, in a file that only grows.

    Args:
        path: Lines of `key`, `task` and `answer`; None keeps them in memory alone.
        fresh: Whether to ask everything again; what is answered then takes the place of what is there.
    """

    def __init__(self, path: Path | None = None, *, fresh: bool = False) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._read(path)
        except OSError as error:
            raise RunError(f"answers cannot be kept in {path}: {error.strerror or error}.") from error
        if fresh:
            self._answers.clear()

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        return self._answers[key]

    def put(self, task: str, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep answers of a task."""
        answers = list(answers)
        self._answers |= dict(answers)
        if self._path is None:
            return
        lines = [json.dumps({"key": key, "task": task, "answer": answer}) + "\n" for key, answer in answers]
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise RunError(f"answers cannot be kept in {self._path}: {error.strerror or error}.") from error

    def _read(self, path: Path) -> None:
        line = "\n"
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    self._answers[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError):
                    continue  # cut off when it was written: it is answered again
        if not line.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")


def key_of(*parts: Any) -> str:
    """A hash of what an answer depends on."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
