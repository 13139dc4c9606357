"""Tables of labelled media as conversations: each row fills the templates of a question and an answer."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.data.json_rows import MAX_ROW_BYTES
from adaptkit.data.media import Media, media_key, shown
from adaptkit.data.row_index import load_rows
from adaptkit.data.rows import parts_at_tags, tag_pattern, text_part
from adaptkit.errors import DataError, unknown_name
from adaptkit.files.text import decode_text, duplicates, no_text
from adaptkit.interfaces import Message

Row = Mapping[str, Any]
READERS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")

COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")
_DELIMITERS = (",", ";", "\t", "|")
MAX_COLUMNS = 10_000
MAX_CELLS = 100_000_000
"""Each takes some fifty bytes and what it says."""

_MAX_CELL = 2**31 - 1
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n")
"""Characters: a cell may hold a picture in base64."""


class TableLayout:
    """A row of a table: a question about the row's media, and its answer.

    A row names its media in columns of their modalities' names, or as `columns` says, as one or a list of them.

    Args:
        tags: Tag of each modality, `{"image": "<image>"}`.
        location: What the rows come from, for messages.
        question: Template of what the user says; each tag in it stands for the next of the row's media. Without any
            tag the media stand in front, one line each.
        answer: Template of what the assistant says.
        columns: Column of a modality's media, where it has another name.
        system: System message put before every conversation.

    Raises:
        DataError: A template is malformed, or a column is said to hold a modality that there is not.
    """

    def __init__(
        self,
        tags: Mapping[str, str],
        location: str,
        *,
        question: str,
        answer: str,
        columns: Mapping[str, str] | None = None,
        system: str | None = None,
    ) -> None:
        self._tags = dict(tags)
        self._named = dict(columns or {})
        for name in self._named:
            if name not in tags:
                raise DataError(f"{location}: columns: {unknown_name('modality', name, tags)}")
        self._templates = {"question": question, "answer": answer}
        for name, template in self._templates.items():
            _check(name, template, location)
        self._system = system

    def read(self, row: Row, media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where a template fails or media are missing."""
        question, answer = (_fill(name, template, row) for name, template in self._templates.items())
        if not answer.strip():
            raise DataError("the answer is empty", kind="empty_answer")
        system = [] if self._system is None else [text_part(self._system)]
        content = {"system": system, "user": self._parts(question, row, media), "assistant": [text_part(answer)]}
        return [{"role": role, "content": parts} for role, parts in content.items() if parts or role == "user"]

    def _parts(self, question: str, row: Row, media: Media) -> list[dict[str, Any]]:
        for name, column in self._named.items():
            if column not in row and media.members is None:
                message = f"{unknown_name('column', column, row)} It should hold {name!r}"
                raise DataError(message, kind="missing_media")
        columns = {name: self._named.get(name) or media_key(row, name) for name in self._tags}
        found = {name: media.find_all(row.get(column), column, name) for name, column in columns.items()}
        if not any(tag in question for tag in self._tags.values()):
            front = [f"{self._tags[name]}\n" for name, items in found.items() for _ in items]
            question = "".join(front) + question
        names = {tag: name for name, tag in self._tags.items()}
        pieces = tag_pattern(self._tags).split(question)
        for name, items in found.items():
            tag = self._tags[name]
            num_tags = pieces[1::2].count(tag)
            if num_tags != len(items):
                message = f"{len(items)} under {name!r}, but {num_tags} {tag} in the question: give each its tag"
                raise DataError(message, kind="tag_count")
        remaining = {name: iter(items) for name, items in found.items()}
        return parts_at_tags(pieces, names, lambda name: next(remaining[name]))


def read_rows(
    path: Path,
    *,
    cache_dir: Path | None = None,
    quotes: bool = True,
    delimiter: str | None = None,
    encoding: str | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> Sequence[Any]:
    """Rows of a `.jsonl`, `.json`, `.csv` or `.tsv` file, by column; cells of the last two are text.

    Only the row of an unreadable line is bad: the error replaces it.

    Args:
        path: The file.
        cache_dir: Folder for what can be made again, where not the usual one.
        quotes: Whether cells of the last two may stand in double quotes.
        delimiter: What separates their cells; by default what the ending and the header say.
        encoding: Of the last two; by default UTF-8, or what a byte order mark says.
        max_row_bytes: A larger row of JSON is bad.

    Raises:
        DataError: The file is missing, of another kind, malformed or empty, or two columns have one name; the message
            names the line.
    """
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            raw = path.read_bytes()
            other = no_text(raw)
            if other is not None:
                raise DataError(f"{path} is {other}")
            text = _decoded(raw, path, encoding)
            said = _SEPARATOR_LINE.match(text)  # as spreadsheets write it
            text = text[said.end() :] if said else text
            rows = _read_cells(text, delimiter or (said[1] if said else _delimiter(text, kind)), path, quotes)
        elif kind in COMPRESSED:
            raise DataError(f"{path} is compressed: unpack it")
        elif kind in READERS:
            return load_rows(path, cache_dir, max_row_bytes, "table")
        else:
            ending = kind or "a file without ending"
            raise DataError(f"{path}: a table is one of {', '.join(READERS)}; this is {ending}")
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error}") from error
    if not rows:
        raise DataError(f"{path}: the table has no rows")
    return rows


def _decoded(raw: bytes, path: Path, encoding: str | None) -> str:
    if encoding is None:
        try:
            return decode_text(raw, str(path))
        except DataError as error:
            raise DataError(f"{error}, or say it in the dataset (encoding)", kind=error.kind) from error
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise DataError(
            f"encoding: Python knows no encoding {encoding!r:.40}; utf-8, gb18030 and utf-16 are some"
        ) from None
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        what = f"{path} is not {encoding}: byte 0x{raw[error.start]:02x} on line {line:,}"
        raise DataError(f"{what}. Take encoding out, or correct it") from error


def _delimiter(text: str, kind: str) -> str:
    """What separates the names in the first line: what the ending says, or what else does where that does not."""
    usual = "\t" if kind == ".tsv" else ","
    header = text.split("\n", 1)[0]
    found = [one for one in _DELIMITERS if one in header]
    return found[0] if usual not in found and len(found) == 1 else usual


def _read_cells(text: str, delimiter: str, path: Path, quotes: bool) -> list[Any]:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.DictReader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
    )
    rows: list[Any] = []
    try:
        names = list(reader.fieldnames or ())
        if len(names) > MAX_COLUMNS:
            raise DataError(f"{path}: the header has {len(names):,} columns, more than the limit of {MAX_COLUMNS:,}")
        doubled = [name for name in duplicates(names) if name]  # a column without a name is read by no template
        if doubled:
            raise DataError(f"{path}: several columns are named {doubled[0]!r:.80}: give each a name of its own")
        for row in reader:
            if len(rows) * len(names) > MAX_CELLS:
                raise DataError(
                    f"{path}: more than {MAX_CELLS:,} cells, which do not fit in memory as a table: write it as parquet"
                )
            cells = [cell for cell in row.values() if isinstance(cell, str)]
            if delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                raise csv.Error("a cell in quotes goes over several lines and columns")
            if None in row or len(cells) < len(row):
                header = f"the header, which has {len(names)}: {shown(names)}"
                rows.append(DataError(f"line {reader.line_num}: the row has not as many cells as {header}"))
            else:
                rows.append(row)
    except csv.Error as error:
        hint = "; if quotes are part of the text, say quotes: false" if quotes and '"' in text else ""
        raise DataError(f"{path}, after line {reader.line_num}: {error}{hint}") from error
    return rows


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_said_value)
    environment.filters["padded_box"] = _padded_box
    del environment.filters["random"]  # a sample reads the same each time
    return environment


def _said_value(value: Any) -> Any:
    """What a template writes; nothing says null."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UndefinedError(f"a value of the row is {'null' if value is None else 'not a number'}")
    return value


def _padded_box(box: Any, width: float, height: float, bins: int | None = None) -> str:
    return format_box(pad_box([float(value) for value in box], float(width), float(height)), bins=bins)


@cache
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _check(name: str, template: str, location: str) -> None:
    try:
        _compiled(template)
    except TemplateError as error:
        raise DataError(
            f"{location}: the template of the {name}, {template!r}, is malformed: {error}. It is Jinja: "
            "`{{ column }}`, or `{{ box | padded_box(width, height) }}`."
        ) from error


def _fill(name: str, template: str, row: Row) -> str:
    try:
        return _compiled(template).render({"row": row, **row})
    except UndefinedError as error:
        odd = next((key for key in row if not str(key).isidentifier()), None)
        hint = "" if odd is None else f"; columns of any name are there as {{{{ row[{odd!r:.80}] }}}}"
        raise DataError(
            f"the template of the {name} asks for what the row lacks: {error}; it has {shown(list(row))}{hint}"
        ) from error
    except Exception as error:  # a filter or an expression on a value of another kind than it expects
        raise DataError(f"the template of the {name} fails on this row: {type(error).__name__}: {error}") from error
