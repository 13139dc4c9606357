"""A text as pieces: what is translated, and what stands between."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from adaptkit.data_tools.translate.languages import Language
from adaptkit.data_tools.translate.spans import KEPT, has_words, share_of

_FENCE = re.compile(r"\s*(```|~~~)")
_EDGE = r"(?:\s|<[^<>\s][^<>\n]{0,80}>)"
_LEAD = re.compile(rf"(?:{_EDGE}|#{{1,6}}\s|>\s|[-*+•]\s|\d+[.)]\s|[A-Z][.)]\s|\([A-Za-z0-9]\)\s)*")
_TAIL = re.compile(rf"{_EDGE}*$")
_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*(\s+)(?=[\"'“‘(\[]?[A-ZÀ-Þ0-9])|(?<=[。！？])(\s*)(?=.)")
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|vs|cf|al|approx|e\.g|i\.e|etc)|\b[A-Z])\.$")
_SAME_LANGUAGE = 0.5


class Piece(NamedTuple):
    """A part of a text.

    Attributes:
        text: As it stands.
        kind: `unit` is translated, `space` stands between two sentences, the rest is kept.
    """

    text: str
    kind: str = "kept"


def cut(text: str, target: Language, *, by_sentence: bool) -> list[Piece]:
    """Pieces of a text, which in their order make it up again.

    Lines stay lines. Fenced code, tags at the ends of a line, and marks of lists are kept, and so is what has no words
    or is in the target language already.

    Args:
        by_sentence: Whether sentences are units; else lines.
    """
    pieces: list[Piece] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
            pieces.append(Piece(line))
        elif fence:
            pieces.append(Piece(line))
        else:
            pieces += _of_line(line, target, by_sentence)
    return pieces


def _of_line(line: str, target: Language, by_sentence: bool) -> Iterator[Piece]:
    start = _LEAD.match(line).end()  # type: ignore[union-attr]  # matches nothing too
    tail = _TAIL.search(line, start)
    end = tail.start() if tail else len(line)
    if start:
        yield Piece(line[:start])
    core = line[start:end]
    if core and _is_foreign(core, target):
        yield from _sentences(core, target) if by_sentence else [Piece(core, "unit")]
    elif core:
        yield Piece(core)
    if end < len(line):
        yield Piece(line[end:])


def _is_foreign(text: str, target: Language) -> bool:
    return has_words(text) and not (target.letters and share_of(text, target.letters) > _SAME_LANGUAGE)


def _sentences(text: str, target: Language) -> Iterator[Piece]:
    kept = [found.span() for found in KEPT.finditer(text)]
    start = 0
    for found in _END.finditer(text):
        at, after = found.span(1) if found[1] is not None else found.span(2)
        inside = any(first < at < last for first, last in kept)
        if inside or _NO_END.search(text[start:at]):
            continue
        yield _unit(text[start:at], target)
        yield Piece(text[at:after], "space")
        start = after
    yield _unit(text[start:], target)


def _unit(text: str, target: Language) -> Piece:
    return Piece(text, "unit" if _is_foreign(text, target) else "kept")


def join(pieces: Sequence[Piece], translate: Callable[[str], str], target: Language) -> str:
    """The text that pieces make up once their units are translated."""
    parts = []
    for piece in pieces:
        if piece.kind == "unit":
            parts.append(translate(piece.text).strip())
        elif piece.kind == "kept" or target.has_spaces:
            parts.append(piece.text)
    return "".join(parts)
