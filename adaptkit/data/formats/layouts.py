"""The layouts of a row by name, and how a row without one is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from adaptkit.data.formats.llava import LlavaLayout
from adaptkit.data.formats.messages import MessagesLayout
from adaptkit.data.formats.row_forms import ConversationRows
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
    found = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    speakers = [turn.get("from", turn.get("role")) for turn in found]
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
                "question and answer for what it has, or name its layout"
            )
        return self._layouts[layout_of(row, self._modalities)].read(row, media)


def build_layout(name: str, options: Any, tags: Mapping[str, str], location: str) -> Layout:
    """A layout by name.

    Args:
        name: One of them; `auto` is `table` where a question is given, else what each row's keys tell.
        options: Of the format; it may lack those of other layouts.
        tags: Tag of each modality.
        location: What the rows come from, for messages.

    Raises:
        DataError: A template is malformed.
    """
    if name == "table" or (name == "auto" and options.question is not None):
        columns = getattr(options, "columns", None)
        return TableLayout(
            tags, location, question=options.question, answer=options.answer, columns=columns, system=options.system
        )
    to_front = getattr(options, "move_media_to_front", False)
    repeated = options.repeated_tags
    layouts: dict[str, Layout] = {
        "llava": LlavaLayout(tags, move_media_to_front=to_front, system=options.system, repeated_tags=repeated),
        "sharegpt": ShareGptLayout(tags, move_media_to_front=to_front, system=options.system, repeated_tags=repeated),
        "messages": MessagesLayout(tags, system=options.system, repeated_tags=repeated),
    }
    layout = AutoLayout(layouts, list(tags)) if name == "auto" else layouts[name]
    return ConversationRows(layout, tags, options.train_on)
