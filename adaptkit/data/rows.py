"""Rows as conversations. Where rows come from and how one is read do not depend on each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from weakref import WeakValueDictionary

from adaptkit.data.formats.objects import place_objects
from adaptkit.data.formats.row_keys import refuse_unplaced
from adaptkit.data.media import Media, shown
from adaptkit.data.unused_media import refuse_unread_media
from adaptkit.errors import DataError
from adaptkit.files.text import decode_text, encoding_of, no_text, parse_json, parse_rows_of_json
from adaptkit.interfaces import DataContext, Message, Sample

MAX_CHARACTERS = 1_000_000
MAX_LINE_BYTES = 256 * 1024**2
"""A row may have pictures in base64."""

LINES = (".jsonl", ".ndjson")
"""Endings of files with a row a line."""

_MORE_THAN_ONE = "Extra data"
_BEGINNING = 4096
_OPENS = re.compile(r"\{\s*\n")
_SPEAKER = {"from", "role"}


class Rows(Protocol):
    """Where rows come from: a list, or anything that reads one when it is asked for.

    It may also have `where(index)`, which says where a row stands, and `is_stream`, as a data source may.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Layout(Protocol):
    """How a row is read."""

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row.

        Raises:
            DataError: It is malformed, or its media are missing.
        """


class RowSource:
    """Conversations of rows. Rows are checked when they are read: a bad one is an error of its own.

    Args:
        rows: Where rows come from.
        layout: How a row is read.
        media: Where the media are that rows name; or what says it of a row by its index.
        location: What to call the rows in messages.
        limit: Read the first so many only.
        context: The modalities in use.
        media_roots: Further folders below which media may lie.
        max_characters: Characters of text beyond which a conversation is refused.

    Attributes:
        is_stream: Whether rows come forwards only.
    """

    def __init__(
        self,
        rows: Rows,
        layout: Layout,
        media: Media | Callable[[int], Media],
        location: str,
        limit: int | None = None,
        *,
        context: DataContext | None = None,
        media_roots: Sequence[Path] = (),
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self._rows = rows
        self._tags = () if context is None else tuple(context.tags)
        self._box_sizes = {} if context is None else context.box_sizes
        self._layout = layout
        self._media = media
        self._location = location
        self._media_roots = tuple(media_roots)
        self._max_characters = max_characters
        self._length = len(rows) if limit is None else min(limit, len(rows))
        self.is_stream = bool(getattr(rows, "is_stream", False))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Read one row.

        Raises:
            DataError: The row is malformed or its media are missing; the message names file, index and id.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"row {index} of {self._length} in {self._location}")
        where = getattr(self._rows, "where", None)
        location, named = f"{self._location}[{index}]" if where is None else str(where(index)), ""
        try:
            row = self._rows[index]
            if isinstance(row, DataError):
                raise DataError(str(row), kind=row.kind)
            if not isinstance(row, Mapping):
                remedy = ". Put the turns under 'conversations' or 'messages'" if _are_turns(row) else ""
                raise DataError(f"a row is an object with keys, not {type(row).__name__}{remedy}")
            named = f" (id {shown(row['id'])})" if "id" in row else ""
            media = self._media if isinstance(self._media, Media) else self._media(index)
            media = media.beside(row, self._media_roots)
            messages = self._layout.read(row, media)
            self._check_size(messages)
            place_objects(row, messages, self._box_sizes)
            refuse_unread_media(row, messages, media, self._tags)
            refuse_unplaced(row, messages)
            given = row.get("id")
            return Sample(str(given if isinstance(given, str | int | float) else index), messages, location)
        except DataError as error:
            kind = "malformed" if error.kind == "other" else error.kind
            raise DataError(f"{location}{named}: {error}", kind=kind) from error

    def _check_size(self, messages: Sequence[Message]) -> None:
        """Refuse what would fill the memory once it is tokenized, long before anything is cut to max_length."""
        texts = (part["text"] for message in messages for part in message["content"] if part["type"] == "text")
        size = sum(map(len, texts))
        if size > self._max_characters:
            raise DataError(
                f"its text has {size:,} characters, more than the limit of {self._max_characters:,}. Cut it into "
                "several conversations, or raise the dataset's max_characters",
                kind="too_large",
            )


class JsonRows(list[Any]):
    """A list that can be referred to weakly."""


_loaded: WeakValueDictionary[tuple[str, int, int], JsonRows] = WeakValueDictionary()


def load_rows(path: Path) -> JsonRows:
    """Rows of a file of JSON: a list of them, or a row a line, whatever the file's ending says.

    Only the row of an unreadable line is bad: the error replaces it.

    Sources of the same file share them, so that files of gigabytes are parsed once.

    Raises:
        DataError: The file cannot be read, is malformed or has no rows.
    """
    try:
        status = path.stat()
        key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
        rows = _loaded.get(key)
        if rows is None:
            rows = _loaded[key] = JsonRows(parse_rows(path))
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror}") from error
    return rows


def parse_rows(path: Path) -> list[Any]:
    """As `load_rows`, anew.

    Raises:
        DataError: The file is malformed or has no rows.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    other = no_text(beginning) if beginning.strip() else "empty"
    if other is not None:
        raise DataError(f"{path} is {other}")
    first = beginning.decode(encoding_of(beginning), errors="ignore").lstrip()
    # An object whose first line opens it alone is not a row of JSON Lines
    in_lines = path.suffix.lower() in LINES and not first.startswith("[") and not _OPENS.match(first)
    rows = _lines_of(path) if in_lines else _list_of(path)
    if not rows:
        raise DataError(f"{path}: the dataset is empty")
    return rows


def _lines_of(path: Path) -> list[Any]:
    with path.open("rb") as file:
        if encoding_of(file.read(4)) in ("utf-8", "utf-8-sig"):
            file.seek(0)
            return [_row_or_error(line, i) for i, line in enumerate(_lines(file), start=1) if line.strip()]
    lines = decode_text(path.read_bytes(), str(path)).split("\n")
    return [_row_or_error(line, i) for i, line in enumerate(lines, start=1) if line.strip()]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long no more than shows that."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > _BEGINNING and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        yield line


def _list_of(path: Path) -> list[Any]:
    try:
        rows = parse_rows_of_json(decode_text(path.read_bytes(), str(path)), str(path))
    except DataError as error:
        if _MORE_THAN_ONE in str(error):
            return _lines_of(path)
        raise
    if isinstance(rows, list):
        return rows
    if isinstance(rows, dict) and any(_are_turns(rows.get(key)) for key in ("conversations", "messages")):
        return [rows]
    raise DataError(f"{path}: a data file is a JSON list of rows, not {type(rows).__name__}{_remedy(rows)}")


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(t, dict) and _SPEAKER & t.keys() for t in value)


def _remedy(value: Any) -> str:
    """What to do about a file whose JSON is not a list."""
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("annotations"), list):
        return ". This is COCO's layout: `adaptkit data convert` makes conversations of it"
    inside = [
        name for name, inner in value.items() if isinstance(inner, list) and any(isinstance(i, dict) for i in inner)
    ]
    if len(inside) == 1:
        return f". Write the list under {inside[0]!r:.80} alone"
    if value and all(isinstance(inner, dict) for inner in value.values()):
        return f". It has {len(value):,} objects by name: write them as a list, each with its name under 'id'"
    return f". It is one object with {shown(list(value))}: a row stands in a list, [{{…}}]"


def _row_or_error(line: str | bytes, number: int) -> Any:
    where = f"line {number}"
    if len(line) > MAX_LINE_BYTES:
        message = f"{where} is longer than {MAX_LINE_BYTES:,} bytes, the limit of a row: keep media in files"
        return DataError(message, kind="too_large")
    try:
        return parse_json(decode_text(line, where, first_line=number) if isinstance(line, bytes) else line, where)
    except DataError as error:
        return DataError(str(error), kind=error.kind)


def tag_pattern(tags: Mapping[str, str]) -> re.Pattern[str]:
    """What splits a text at the tags of modalities: pieces at odd places are tags, the others text."""
    return re.compile("(" + ("|".join(map(re.escape, tags.values())) or r"(?!)") + ")")


def text_part(text: str) -> dict[str, Any]:
    """A part of a message that is text."""
    return {"type": "text", "text": text}


def parts_at_tags(pieces: Sequence[str], by_tag: Mapping[str, str], take: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Parts of a text that `tag_pattern` has split: each tag is the medium that `take` gives of its modality."""
    parts: list[dict[str, Any]] = []
    for i, piece in enumerate(pieces):
        if i % 2:
            modality = by_tag[piece]
            parts.append({"type": modality, modality: take(modality)})
        elif piece:
            parts.append(text_part(piece))
    return parts
