"""What a translation must leave as it is: tags, boxes, code, addresses and numbers; masked before, checked after."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = r"-?\d+(?:\.\d+)?"
_KEPT = (
    r"(?P<ticks>`+)[^\n]+?(?P=ticks)(?!`)",  # code
    r"<[^<>\s][^<>\n]{0,80}>",  # tags of media, markup, special tokens
    r"(?:(?:https?|ftp)://|(?<![A-Za-z0-9.])www\.)[A-Za-z0-9._~:/?#@!$&*+,;=%-]*[A-Za-z0-9/#=&_-]",
    r"[A-Za-z0-9_.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    rf"[\[(]\s*{_NUMBER}(?:\s*,\s*{_NUMBER})+\s*[\])]",  # boxes
    r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$|\$[^$\n]*[\\^_={}][^$\n]*\$",  # formulas
    r"(?<![A-Za-z0-9_./])(?:\.{0,2}/)?(?:[A-Za-z0-9_-]+/)+[A-Za-z0-9_.-]+\.[A-Za-z0-9]{1,5}(?![A-Za-z0-9])",  # paths
    r"\([A-Z]\)",  # letters of options
    r"\{\{.+?\}\}",  # templates
)
KEPT = re.compile("|".join(f"(?:{pattern})" for pattern in _KEPT))
_NUMBERS = re.compile(r"\d+(?:[.,:/]\d+)*%?")
_KEPT_OR_NUMBER = re.compile(f"{KEPT.pattern}|{_NUMBERS.pattern}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MARK = re.compile(r"\[\s*\[\s*(\d+)\s*\]\s*\]|【\s*【\s*(\d+)\s*】\s*】")
_SPANS_LOST = "tags, boxes, code or addresses lost"
_UNKNOWN = ("<unk>", "\N{REPLACEMENT CHARACTER}")
_MAX_GROWTH = 8
_MAX_REPEATS = re.compile(r"(.{1,12}?)\1{11,}", re.DOTALL)


@dataclass(frozen=True)
class Masked:
    """A text in which marks, `[[1]]`, stand for what is to be kept.

    Attributes:
        source: The text without marks.
        text: With them.
        spans: What they stand for, in order.
    """

    source: str
    text: str
    spans: tuple[str, ...] = ()


class LostError(ValueError):
    """A translation lost something that it had to keep; the message is the reason that is counted."""


def mask(source: str, *, numbers: bool = False) -> Masked:
    """Put marks in place of what is to be kept.

    Args:
        numbers: Whether numbers are masked, too; else they are left to the model, and checked.
    """
    spans: list[str] = []

    def take(found: re.Match[str]) -> str:
        spans.append(found[0])
        return f"[[{len(spans)}]]"

    if _MARK.search(source):  # marks of its own would be mistaken for ours
        return Masked(source, source)
    text = (_KEPT_OR_NUMBER if numbers else KEPT).sub(take, source)
    return Masked(source, text, tuple(spans))


def unmask(masked: Masked, translation: str) -> str:
    """Put back what the marks of a translation stand for, and check that nothing is lost.

    Raises:
        LostError: Something is.
    """
    if not masked.spans:
        return check_kept(masked.source, translation)
    found = [int(a or b) for a, b in _MARK.findall(translation)]
    if sorted(found) != list(range(1, len(masked.spans) + 1)):
        raise LostError(_SPANS_LOST)
    # Without marks, beside which what was kept could read otherwise
    check_kept(_MARK.sub(" ", masked.text), _MARK.sub(" ", translation), is_part=True)
    return _MARK.sub(lambda mark: masked.spans[int(mark[1] or mark[2]) - 1], translation)


def check_kept(source: str, translation: str, *, is_part: bool = False) -> str:
    """The translation, once it is sure to be one, and to have the kept spans and the numbers of its source.

    Args:
        is_part: Whether it stands beside something else, and may be empty.

    Raises:
        LostError: It is empty, far too long, repeats itself, or lost or added something.
    """
    if not translation.strip() and not is_part:
        raise LostError("empty translation")
    if any(mark in translation and mark not in source for mark in _UNKNOWN):
        raise LostError("characters that the model does not know")
    if len(translation) > _MAX_GROWTH * max(len(source), 20) or _MAX_REPEATS.search(translation):
        raise LostError("repetition without end")
    if _kept_in(source) != _kept_in(translation):
        raise LostError(_SPANS_LOST)
    if numbers_of(source) != numbers_of(translation):
        raise LostError("numbers lost or added")
    return translation


def _kept_in(text: str) -> Counter[str]:
    return Counter(found[0] for found in KEPT.finditer(text))


def numbers_of(text: str) -> Counter[str]:
    """The numbers of a text outside what is kept anyway, without separators of thousands."""
    plain = unicodedata.normalize("NFKC", KEPT.sub(" ", text))
    return Counter(_NUMBERS.findall(_THOUSANDS.sub("", plain)))


def between_spans(source: str) -> list[tuple[bool, str]]:
    """A text cut at what is to be kept: whether a part is kept, and the part."""
    parts, end = [], 0
    for found in KEPT.finditer(source):
        parts += [(False, source[end : found.start()]), (True, found[0])]
        end = found.end()
    return [part for part in [*parts, (False, source[end:])] if part[1]]


def has_words(text: str, minimum: int = 2) -> bool:
    """Whether a text has so many letters in a row outside what is kept anyway."""
    return re.search(rf"[^\W\d_]{{{minimum},}}", KEPT.sub(" ", text)) is not None


def share_of(text: str, letters: Sequence[tuple[str, str]]) -> float:
    """How many of a text's letters lie in some ranges of characters."""
    found = [character for character in KEPT.sub(" ", text) if character.isalpha()]
    inside = sum(any(first <= character <= last for first, last in letters) for character in found)
    return inside / max(1, len(found))
