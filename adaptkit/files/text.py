"""Text of files: its encoding and, where it is not text or not JSON, what it seems to be and what to do."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from adaptkit.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = {
    b"\x1f\x8b": "compressed with gzip: unpack it (gunzip)",
    b"BZh": "compressed with bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ": "compressed with xz: unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard: unpack it (unzstd)",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it, or export it as CSV in UTF-8",
    b"PAR1": "a parquet file: the format parquet reads it",
    b"ARROW1": "an Arrow file: the format hf_dataset reads it",
    b"SQLite format 3": "a database: export its rows as JSON Lines",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file: fetch that (git lfs pull)",
    b"<!doctype html": "a web page, as a failed download leaves it: download the file again",
    b"<html": "a web page, as a failed download leaves it: download the file again",
}
_NUM_LOOKED_AT = 1 << 20
_CONTEXT = 200

PIECE_BYTES = 1 << 20

_LIKELY = (
    ("SHIFT_JIS", 0.2, "\u3041\u30fe"),  # kana, full width
    ("EUC-JP", 0.2, "\u3041\u30fe"),
    ("EUC-KR", 0.9, "\uac00\ud7a3"),
    ("WINDOWS-1251", 0.7, "\u0430\u044f"),  # small letters, of which texts mostly consist
    ("KOI8-R", 0.7, "\u0430\u044f"),
    ("GB2312", 0.0, "\u4e00\u9fff"),
    ("BIG5", 0.0, "\u4e00\u9fff"),
)
"""Encodings in the order of how certain their letters are: name, share of all letters that tells, first and last."""

_NEIGHBOURS = re.compile(rb"[\x80-\xff]{2}")


def encoding_of(beginning: bytes) -> str:
    """What a byte order mark says; UTF-8 without one."""
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), "utf-8")


def decode_text(raw: bytes, where: str, *, first_line: int = 1) -> str:
    """The text of a file, or of a line of one.

    Args:
        where: What to call it in messages.
        first_line: Number of its first line, for messages.

    Raises:
        DataError: It is not UTF-8 and has no byte order mark; the message says what it seems to be.
    """
    _refuse_zeros(raw, where)
    try:
        return raw.decode(encoding_of(raw))
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        raise _undecodable(error, raw, where, line) from error


def decode_pieces(file: BinaryIO, where: str) -> Iterator[str]:
    """As `decode_text`, of a file that is read a piece at a time."""
    beginning = file.read(PIECE_BYTES)
    _refuse_zeros(beginning, where)
    decoder = codecs.getincrementaldecoder(encoding_of(beginning))()
    line, raw = 1, beginning
    while True:
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            seen = len(error.object) - len(raw)  # of a character that the piece before began
            line += raw.count(b"\n", 0, max(0, error.start - seen))
            raise _undecodable(error, beginning, where, line) from error
        if text:
            yield text
        if not raw:
            return
        line += raw.count(b"\n")
        raw = file.read(PIECE_BYTES)


def _refuse_zeros(raw: bytes, where: str) -> None:
    beginning = raw[:_CONTEXT]
    if encoding_of(raw) == "utf-8" and beginning.count(0) > len(beginning) // 8:
        raise DataError(f"{where} is not UTF-8, but has zeros between its characters; {_remedy(_likely_encoding(raw))}")


def _undecodable(error: UnicodeDecodeError, beginning: bytes, where: str, line: int) -> DataError:
    other = no_text(beginning)
    if other is not None:
        return DataError(f"{where} is {other}", kind="unreadable_file")
    if error.reason == "unexpected end of data" and b"\0" not in beginning:
        reason = "its last character is incomplete: it is cut short"
    else:
        reason = _remedy(_likely_encoding(_around(error, beginning)))
    encoding = encoding_of(beginning)
    name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    return DataError(f"{where} is not {name}: byte 0x{error.object[error.start]:02x} on line {line:,}; {reason}")


def _around(error: UnicodeDecodeError, beginning: bytes) -> bytes:
    """What to guess an encoding by: the beginning of a text, or what has the error where that is all ASCII."""
    return error.object if beginning.isascii() else beginning


def no_text(raw: bytes) -> str | None:
    """What binary content is, and what to do about it; None if it may be text."""
    beginning = raw[:64].lstrip().lower() if raw[:64].lstrip()[:1] == b"<" else raw
    return next((what for magic, what in _NO_TEXT.items() if beginning.startswith(magic)), None)


def _remedy(encoding: str) -> str:
    known = f"{encoding} (GBK, GB2312)" if encoding == "GB18030" else encoding
    return f"it seems to be {known}. Save it as UTF-8: iconv -f {encoding} -t UTF-8 OLD > NEW"


def _likely_encoding(raw: bytes) -> str:
    """A guess at what encodes a text that is not UTF-8, by the name that iconv knows."""
    raw = raw[:_NUM_LOOKED_AT]
    if raw.count(b"\0") > len(raw) * 11 // 20:
        return "UTF-32LE" if raw[:1] != b"\0" else "UTF-32BE"
    if raw.count(b"\0") > len(raw) // 8:
        return "UTF-16LE" if raw[1::2].count(b"\0") > raw[::2].count(b"\0") else "UTF-16BE"
    pairs = 2 * len(_NEIGHBOURS.findall(raw))
    if pairs > sum(byte > 0x7F for byte in raw) // 2:  # Latin letters with accents stand alone
        likely = next((name for name, share, letters in _LIKELY if _share(raw, name, letters) >= share), "GB2312")
        return likely.replace("GB2312", "GB18030")  # which holds it, and more
    return "WINDOWS-1252"


def _share(raw: bytes, encoding: str, letters: str) -> float:
    """How many of the characters beyond ASCII are such letters, were the text in an encoding; -1 where it cannot be."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(raw)
    except UnicodeDecodeError:
        return -1
    beyond = [character for character in text if character > "\x7f"]
    return sum(letters[0] <= character <= letters[1] for character in beyond) / max(1, len(beyond))


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON value.

    Raises:
        DataError: It is malformed, or an object in it has a key twice; `where` says where it stands.
    """
    value, doubled = _loads(text, where)
    if doubled:
        raise DataError(f"{where}: an object has the key {doubled[0]!r:.80} twice: keep one of them")
    return value


def duplicates(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _loads(text: str | bytes, where: str) -> tuple[Any, list[str]]:
    """A JSON value, and keys that an object in it has twice."""
    doubled: list[str] = []
    text = (decode_text(text, where) if isinstance(text, bytes) else text).rstrip()
    try:
        return json.loads(text, object_pairs_hook=noting_duplicates(doubled)), doubled
    except json.JSONDecodeError as error:  # of one line, `where` says which
        place = f"line {error.lineno} column {error.colno}" if "\n" in error.doc.strip() else f"column {error.colno}"
        advice = advice_on_json(error.doc, error.pos, error.msg)
        raise DataError(f"{where}: not valid JSON: {error.msg} at {place}{advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def noting_duplicates(doubled: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """What makes objects, and notes the first key that each has twice."""

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            doubled.append(duplicates(key for key, _ in pairs)[0])
        return found

    return as_object


def advice_on_json(text: str, place: int, reason: str) -> str:
    """What to do about a text at whose character `place` it stops being JSON."""
    before = text[max(0, place - _CONTEXT) : place].rstrip()[-1:]
    after = text[place : place + _CONTEXT].lstrip()
    if "delimiter" in reason and after[:1] == '"':
        return ": a comma is missing"
    if (before == "," and after[:1] in "]}" and after) or re.match(r",\s*[\]}]", after):
        return ": take out the comma before the closing bracket"
    if after[:1] == "'" or re.match(r"(None|True|False)\b", after):
        return ": this is Python's notation; json.dump writes JSON, with double quotes, null, true and false"
    if after.startswith(("//", "/*", "#")):
        return ": JSON has no comments; take them out"
    if "control character" in reason:
        return ": a line break or tab inside a text is written \\n or \\t"
    if "escape" in reason:
        return ": a backslash in a text is written \\\\; in paths write / instead"
    if reason == "Extra data" and after[:1] == ",":
        return ": take out the comma at the end of the line"
    if reason == "Extra data" and after[:1] in "{[":
        return ": each row needs a line of its own"
    if not after or reason.startswith("Unterminated string"):
        return ": it ends in the middle. The file is cut short, or a row goes over several lines in JSON Lines"
    return ""
