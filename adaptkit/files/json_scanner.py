"""JSON texts a piece at a time, with the messages that `json` has for the whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.text import advice_on_json, noting_duplicates

_WHITESPACE = re.compile(r"[ \t\r\n]*")
_BRACKET = re.compile(r'["\[\]{}]')
_QUOTE = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"(?=[,\]}\s])")
_LONGEST_TOKEN = 16
"""Of which a text may have the beginning, so that the error is before its end: `-Infinity`, `\\ud83d\\ude00`."""


class JsonScanner:
    """A cursor over a JSON text of which only a part is in memory.

    Args:
        pieces: The text.
        where: What to call it in messages.
    """

    def __init__(self, pieces: Iterator[str], where: str) -> None:
        self._pieces = pieces
        self._where = where
        self._text, self._at = "", 0
        self._mark = 0  # behind the last value; what comes before is let go
        self._before = ""  # of a JSON text in which what follows the mark is wrong in the same way
        self._line, self._column = 1, 1  # of the first character in memory
        self._ended = False
        self._doubled: list[str] = []
        self._decode = json.JSONDecoder(object_pairs_hook=noting_duplicates(self._doubled)).raw_decode

    @property
    def doubled(self) -> str | None:
        """A key that an object in the last value has twice."""
        return self._doubled[0] if self._doubled else None

    def entries(self) -> Iterator[None]:
        """Stand before each entry of a list in turn, and behind the whole at the end."""
        self._at += 1
        if self.peek() != "]":
            yield
            while self.peek() == ",":
                self._at += 1
                yield
            if self.peek() != "]":
                raise self._error()
        self._at += 1

    def peek(self) -> str:
        """The next character that is not whitespace; empty at the end."""
        while True:
            self._at = _WHITESPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches nothing too
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def at_end(self) -> bool:
        """Whether nothing but whitespace follows."""
        while self.peek().isspace():  # more is whitespace than in JSON
            self._at += 1
        return not self.peek()

    def value(self, max_length: int) -> tuple[Any, str] | None:
        """The next value, and its text; None for one that is longer than so many characters, which is skipped.

        Raises:
            DataError: It is not valid JSON.
        """
        if not self.peek():
            raise self._error()
        found = self._parsed(whole=False)
        if found is None and self._find_end(max_length):
            found = self._parsed(whole=True)
        text = ""
        if found is not None:
            text = self._text[self._at : found[1]]
            self._at = found[1]
        self._mark, self._before = self._at, '[""'
        return None if found is None or len(text) > max_length else (found[0], text)

    def _parsed(self, whole: bool) -> tuple[Any, int] | None:
        """The next value and where it ends; None where it may go on in the next piece."""
        self._doubled.clear()
        whole = whole or self._ended
        try:
            value, end = self._decode(self._text, self._at)
        except json.JSONDecodeError as error:
            goes_on = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _LONGEST_TOKEN
            if whole or not goes_on:
                raise self._error() from error
            return None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self._where}: not valid JSON: {error}") from error
        return (value, end) if whole or end < len(self._text) else None

    def _find_end(self, max_length: int) -> bool:
        """Read on to where the next value ends by its brackets and quotes; where it is too long, step behind it."""
        depth, place, kept = 0, self._at, True
        token = _BRACKET if self._text[self._at] in '"[{' else _SCALAR_END
        while True:
            match = token.search(self._text, place)
            if match is None:
                place = max(place, len(self._text))
                kept = kept and place - self._at <= max_length
                if not kept:
                    self._at = self._mark = len(self._text)
                place -= self._mark
                if self._more():
                    continue
                if not kept:
                    words = f"a value of more than {max_length:,} characters does not end: the file is cut short"
                    raise DataError(f"{self._where}: not valid JSON: {words}")
                return True
            place = match.end()
            if match[0] == "\\":
                place += 1
                continue
            if match[0] == '"':
                token = _BRACKET if token is _QUOTE else _QUOTE
            elif match[0]:
                depth += 1 if match[0] in "[{" else -1
            if depth <= 0 and token is not _QUOTE:
                break
        if not kept or place - self._at > max_length:
            self._at = place
            return False
        return True

    def _more(self) -> bool:
        piece = next(self._pieces, "")
        gone = self._text[: self._mark]
        self._line += gone.count("\n")
        self._column = len(gone) - gone.rfind("\n") if "\n" in gone else self._column + len(gone)
        self._text = self._text[self._mark :] + piece
        self._at -= self._mark
        self._mark = 0
        self._ended = not piece
        return bool(piece)

    def _error(self) -> DataError:
        """What `json` says about the text behind the last value, and where in the whole that is."""
        self._more()
        try:
            json.loads((self._before + self._text).rstrip())
        except json.JSONDecodeError as error:
            before = self._text[: max(0, error.pos - len(self._before))]
            line = self._line + before.count("\n")
            column = len(before) - before.rfind("\n") if "\n" in before else self._column + len(before)
            place = f"line {line} column {column}" if line > 1 or "\n" in self._text.strip() else f"column {column}"
            advice = advice_on_json(error.doc, error.pos, error.msg)
            return DataError(f"{self._where}: not valid JSON: {error.msg} at {place}{advice}")
        except (ValueError, RecursionError) as error:
            return DataError(f"{self._where}: not valid JSON: {error}")
        raise AssertionError("the text was found to be wrong")
