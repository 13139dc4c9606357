"""A file of conversations translated, window by window."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adaptkit.data.json_rows import LINES
from adaptkit.data.row_index import load_rows
from adaptkit.data_tools.convert.writing import reasons
from adaptkit.data_tools.translate.engine import Outcome, translate_rows
from adaptkit.data_tools.translate.journal import Journal
from adaptkit.data_tools.translate.languages import Language
from adaptkit.data_tools.translate.models import Translator
from adaptkit.errors import DataError
from adaptkit.files.json_stream import Progress
from adaptkit.files.writing import STAGING, atomic_file
from adaptkit.releases.entries import Skipped

WINDOW = 64
"""Rows that are translated together, and kept together."""

_ENOUGH = 32
"""Conversations without one success after which something is wrong with the model."""


@dataclass
class Translated:
    """What a translation wrote.

    Attributes:
        path: The file.
        num_rows: Conversations in it.
        num_translated: Of them in the target language.
        num_unchanged: Of them without words to translate.
        untranslated: Number of those that stayed in the source language, or were dropped, by reason.
        dropped: Whether they were.
    """

    path: Path
    num_rows: int = 0
    num_translated: int = 0
    num_unchanged: int = 0
    untranslated: Skipped = field(default_factory=Skipped)
    dropped: bool = False

    def count(self, outcome: Outcome) -> None:
        """Take a conversation into account."""
        if outcome.reason is not None:
            self.untranslated.note(outcome.reason, DataError(outcome.example))
        elif outcome.changed:
            self.num_translated += 1
        else:
            self.num_unchanged += 1

    def __str__(self) -> str:
        left = "Dropped" if self.dropped else "Left in the source language"
        unchanged = f", {self.num_unchanged:,} without words to translate" if self.num_unchanged else ""
        said = f"{self.path}: {self.num_rows:,} conversations, {self.num_translated:,} translated{unchanged}."
        return f"{said} {left}: {reasons(self.untranslated) or 'none'}."


def translate_file(
    source: Path,
    output: Path,
    target: Language,
    load: Callable[[], Translator],
    settings: dict[str, Any],
    *,
    limit: int | None = None,
    untranslated: Literal["keep", "drop"] = "keep",
    progress: Progress | None = None,
) -> Translated:
    """Translate a file of conversations into one of the same format.

    What is done is kept beside the output, in a file that begins with `.staging-`; the same call resumes it.

    Args:
        source: JSON or JSON Lines in the layout of LLaVA, ShareGPT or chat messages.
        output: The file to write, which appears when it is complete.
        target: Language of the translations.
        load: Loads what translates, where something is left to translate.
        settings: What else the result depends on, by the names that the user gave it: model, languages and the like.
        limit: Translate the first so many rows only, and write no others.
        untranslated: Whether conversations that could not be translated stay in the source language, or are dropped.
        progress: Called with the rows that are done.

    Raises:
        DataError: The file cannot be read, was translated with other settings before, or nothing can be translated.
        RunError: A file cannot be written.
    """
    if source.resolve() == output.resolve():
        raise DataError(f"{output} is the file that is translated: name another --output")
    rows = load_rows(source)
    wanted = rows[:limit] if limit else rows
    settings = {**settings, "file": _digest(source), "window": WINDOW}
    journal = Journal(output.with_name(f"{STAGING}{output.name}.translated"), settings)
    _translate(wanted, journal, target, load, progress)
    summary = Translated(output, dropped=untranslated == "drop")
    kept = _counted(journal.outcomes(), len(wanted), summary)
    _write(kept, output, as_lines=_is_in_lines(source))
    journal.path.unlink()
    return summary


def _translate(
    rows: Sequence[Any], journal: Journal, target: Language, load: Callable[[], Translator], progress: Progress | None
) -> None:
    translator: Translator | None = None
    start = journal.open()
    seen: Counter[bool] = Counter(one.reason is None for one in journal.outcomes() if one.changed)
    if progress is not None and start:
        progress(start, len(rows), "translating")
    for first in range(start, len(rows), WINDOW):
        translator = translator or load()
        window = rows[first : first + WINDOW]
        outcomes = translate_rows(window, translator, target)
        seen.update(one.reason is None for one in outcomes if one.changed)
        journal.add(outcomes, first + len(window))
        if not seen[True] and seen[False] >= _ENOUGH:
            break
        if progress is not None:
            progress(first + len(window), len(rows), "translating")
    if seen[False] and not seen[True]:
        error = _hopeless([one for one in journal.outcomes() if one.example])
        journal.path.unlink()
        raise error


def _hopeless(failed: Sequence[Outcome]) -> DataError:
    counts = reasons(Counter(str(one.reason) for one in failed))
    return DataError(
        f"the model translated none of {len(failed)} conversations: {counts}. One of the sentences: "
        f"{failed[0].example}. Does it translate between these languages?"
    )


def _counted(outcomes: Iterable[Outcome], num_rows: int, summary: Translated) -> Iterator[Any]:
    for number, outcome in enumerate(outcomes):
        if number >= num_rows:  # kept by an earlier call with a larger limit
            return
        summary.count(outcome)
        if outcome.row is not None and (outcome.reason is None or not summary.dropped):
            summary.num_rows += 1
            yield outcome.row


def _write(rows: Iterable[Any], output: Path, *, as_lines: bool) -> None:
    with atomic_file(output) as file:
        separator = "" if as_lines else "[\n"
        for row in rows:
            file.write(separator + _json(row) + ("\n" if as_lines else ""))
            separator = "" if as_lines else ",\n"
        if not as_lines:
            file.write("[]\n" if separator == "[\n" else "\n]\n")


def _json(row: Any) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # halves of characters, which only escapes can hold
        return json.dumps(row)
    return text


def _is_in_lines(path: Path) -> bool:
    with path.open("rb") as file:
        beginning = file.read(4096)
    return path.suffix.lower() in LINES and not beginning.lstrip().startswith(b"[")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
