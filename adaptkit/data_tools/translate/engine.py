"""Rows translated: each conversation whole, or left as it is with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from adaptkit.data_tools.translate.languages import Language
from adaptkit.data_tools.translate.models import Translator
from adaptkit.data_tools.translate.pieces import cut, join
from adaptkit.data_tools.translate.rows import texts_of, with_texts
from adaptkit.data_tools.translate.spans import (
    KEPT,
    LostError,
    Masked,
    between_spans,
    check_kept,
    has_words,
    mask,
    share_of,
    unmask,
)
from adaptkit.errors import DataError

_FEW_WORDS = 3


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: Translated; as it was where that failed; None where it cannot even be read.
        reason: Why it failed; None where it did not.
        example: A text that failed, and what the model made of it.
        changed: Whether there was anything to translate.
    """

    row: Any
    reason: str | None = None
    example: str = ""
    changed: bool = False


class _Failed(Exception):  # noqa: N818  # it ends the translation of a row, and is no mistake
    """A unit of a row has no translation."""

    def __init__(self, unit: str, error: LostError) -> None:
        super().__init__(unit)
        self.unit, self.error = unit, error


def translate_rows(rows: Sequence[Any], translator: Translator, target: Language) -> list[Outcome]:
    """Translate some conversations together.

    What is equal in several of them is translated once. What loses a mark or a number is tried again with numbers
    masked, and then between the spans that are to be kept.

    Args:
        rows: In the layouts of LLaVA, ShareGPT or chat messages.
        translator: Translates sentences or lines.
        target: Language of the translations.
    """
    units: dict[str, str | LostError] = {}
    readable: list[str | None] = []
    for row in rows:
        if isinstance(row, DataError):
            readable.append("unreadable rows, dropped")
            continue
        try:
            units.update(dict.fromkeys(_units(row, translator, target), ""))
            readable.append(None)
        except DataError as error:
            readable.append(f"not a conversation: {error}")
    _translate_units(units, translator, target)
    return [
        Outcome(None if isinstance(row, DataError) else row, bad) if bad else _outcome(row, units, translator, target)
        for row, bad in zip(rows, readable)
    ]


def _units(row: Any, translator: Translator, target: Language) -> list[str]:
    return [
        piece.text
        for container, key in texts_of(row)
        if isinstance(container[key], str)
        for piece in cut(container[key], target, by_sentence=translator.by_sentence)
        if piece.kind == "unit"
    ]


def _outcome(row: Any, units: dict[str, str | LostError], translator: Translator, target: Language) -> Outcome:
    def translated(unit: str) -> str:
        result = units[unit]
        if isinstance(result, LostError):
            raise _Failed(unit, result)
        return result

    def change(text: str) -> str:
        return join(cut(text, target, by_sentence=translator.by_sentence), translated, target)

    try:
        new = with_texts(row, change)
    except _Failed as failure:
        return Outcome(row, str(failure.error), f"{failure.unit[:200]!r}", changed=True)
    return Outcome(new, changed=bool(_units(row, translator, target)))


def _translate_units(units: dict[str, str | LostError], translator: Translator, target: Language) -> None:
    attempts: list[Callable[[Iterable[str]], dict[str, str | LostError]]] = [
        lambda pending: _masked(list(pending), translator, target, numbers=False),
        lambda pending: _masked([u for u in pending if _has_digits(u)], translator, target, numbers=True),
        lambda pending: _in_parts([u for u in pending if KEPT.search(u)], translator, target),
    ]
    pending = list(units)
    for number, attempt in enumerate(attempts):
        results = attempt(pending)
        # What failed for good is counted for what went wrong first
        units.update({u: r for u, r in results.items() if number == 0 or not isinstance(r, LostError)})
        pending = [unit for unit in pending if isinstance(units[unit], LostError)]


def _has_digits(text: str) -> bool:
    return any(character.isdigit() for character in KEPT.sub("", text))


def _masked(
    pending: Sequence[str], translator: Translator, target: Language, *, numbers: bool
) -> dict[str, str | LostError]:
    """Translate texts in which marks stand for what is to be kept."""
    masked = [mask(unit, numbers=numbers) for unit in pending]
    results = translator.translate([one.text for one in masked]) if masked else []

    def finish(one: Masked, result: str | LostError) -> str | LostError:
        return result if isinstance(result, LostError) else unmask(one, result)

    return {one.source: _checked(one.source, partial(finish, one, r), target) for one, r in zip(masked, results)}


def _in_parts(pending: Sequence[str], translator: Translator, target: Language) -> dict[str, str | LostError]:
    """Translate only what stands between the spans that are to be kept."""
    parts = {unit: between_spans(unit) for unit in pending}
    texts = list({text for found in parts.values() for kept, text in found if not kept and has_words(text)})
    texts.sort()
    known = dict(zip(texts, translator.translate([text.strip() for text in texts]) if texts else []))

    def put_together(unit: str) -> str | LostError:
        pieces = []
        for _, text in parts[unit]:
            result = known.get(text, text)
            if isinstance(result, LostError):
                return result
            pieces.append(_with_edges(text, check_kept(text, result), target) if text in known else text)
        return "".join(pieces)

    return {unit: _checked(unit, partial(put_together, unit), target) for unit in pending}


def _with_edges(source: str, translation: str, target: Language) -> str:
    """A translation between the whitespace that its source stands between, where the language has spaces."""
    if not target.has_spaces:
        return translation.strip()
    start, end = len(source) - len(source.lstrip()), len(source.rstrip())
    return source[:start] + translation.strip() + source[end:]


def _checked(source: str, finish: Callable[[], str | LostError], target: Language) -> str | LostError:
    """What a unit becomes, or why there is nothing that it could become."""
    try:
        text = finish()
        if not isinstance(text, LostError):
            _check_language(source, text, target)
    except LostError as error:
        return error
    return text


def _check_language(source: str, text: str, target: Language) -> None:
    """Make sure that a sentence is in the target language, as far as letters show it."""
    if len(source.split()) <= _FEW_WORDS:  # which may be a name
        return
    if target.letters and not share_of(text, target.letters):
        raise LostError(f"no letter of {target.name} in the translation")
    if text.strip() == source.strip():
        raise LostError("returned unchanged")
