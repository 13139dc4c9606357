"""Rows as conversations. Where rows come from and how one is read do not depend on each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from adaptkit.data.formats.objects import place_objects
from adaptkit.data.formats.row_keys import refuse_unplaced
from adaptkit.data.json_rows import are_turns
from adaptkit.data.media import Media, shown
from adaptkit.data.unused_media import refuse_unread_media
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, Message, Sample

MAX_CHARACTERS = 1_000_000


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
        identity: All that decides what the rows say, so that what is counted of them may be kept; None: unknown.

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
        identity: str | None = None,
    ) -> None:
        self.identity = identity
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
                remedy = ". Put the turns under 'conversations' or 'messages'" if are_turns(row) else ""
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


def without_tags(pieces: Sequence[str], is_dropped: Callable[[str], bool]) -> list[str]:
    """Pieces of a text that `tag_pattern` has split, without some of its tags, and the lines that these stood on.

    Args:
        is_dropped: Asked of each tag, in their order.
    """
    kept = [pieces[0]]
    for tag, text in zip(pieces[1::2], pieces[2::2]):
        if is_dropped(tag):
            kept[-1] += text if kept[-1] else text.removeprefix("\n")
        else:
            kept += [tag, text]
    return kept
