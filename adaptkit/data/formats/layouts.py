"""The layouts of a row by name, and how a row without one is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from adaptkit.data.formats.llava import LlavaLayout
from adaptkit.data.formats.messages import MessagesLayout
from adaptkit.data.formats.sharegpt import ShareGptLayout
from adaptkit.data.formats.table import TableLayout
from adaptkit.data.media import Media, shown
from adaptkit.data.rows import Layout
from adaptkit.errors import DataError
from adaptkit.interfaces import Message


def layout_of(row: Mapping[str, Any], modalities: Collection[str]) -> str:
    """Name of the layout that a row of conversations has.

    `messages` where it has that key; `sharegpt` where it has `system`, media under a plural name, or a speaker that
    only that layout knows; else `llava`.
    """
    if row.get("messages") is not None:
        return "messages"
    if row.get("system") is not None or any(row.get(f"{modality}s") is not None for modality in modalities):
        return "sharegpt"
    turns = row.get("conversations")
    speakers = [turn.get("from") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    return "sharegpt" if any(name in ("user", "assistant", "system") for name in speakers) else "llava"


class AutoLayout:
    """Rows of conversations in any layout, each told by its keys (`layout_of`)."""

    def __init__(self, layouts: Mapping[str, Layout], modalities: Collection[str]) -> None:
        self._layouts = layouts
        self._modalities = modalities

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""
        if row.get("conversations") is None and row.get("messages") is None:
            raise DataError(
                f"the row has neither 'conversations' nor 'messages' but {shown(list(row))}: give the templates "
                "question and answer for what it has, or name its layout",
                kind="malformed",
            )
        return self._layouts[layout_of(row, self._modalities)].read(row, media)


def build_layout(
    name: str,
    tags: Mapping[str, str],
    location: str,
    *,
    system: str | None = None,
    move_media_to_front: bool = False,
    question: str | None = None,
    answer: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Layout:
    """A layout by name.

    Args:
        name: One of them; `auto` is `table` where a question is given, else what each row's keys tell.
        tags: Tag of each modality.
        location: What the rows come from, for messages.
        system: As in the layouts.
        move_media_to_front: As in `LlavaLayout`.
        question: Template of a table.
        answer: The same.
        columns: Column of a modality's media in a table, where it has another name.

    Raises:
        DataError: A table lacks a template, or one is malformed.
    """
    if name == "table" or (name == "auto" and question is not None):
        if question is None or answer is None:
            raise DataError(f"{location}: the layout 'table' needs the templates question and answer")
        return TableLayout(tags, location, question=question, answer=answer, columns=columns, system=system)
    layouts: dict[str, Layout] = {
        "llava": LlavaLayout(tags, move_media_to_front=move_media_to_front, system=system),
        "sharegpt": ShareGptLayout(tags, move_media_to_front=move_media_to_front, system=system),
        "messages": MessagesLayout(tags, system=system),
    }
    return AutoLayout(layouts, list(tags)) if name == "auto" else layouts[name]
