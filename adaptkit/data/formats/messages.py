"""OpenAI's layout of a row: chat messages, with content as text or as a list of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from adaptkit.data.formats.llava import check_turns
from adaptkit.data.formats.parts import PartReader
from adaptkit.data.formats.row_keys import is_learned, refuse_unread_keys, system_message
from adaptkit.data.media import Media, shown
from adaptkit.data.rows import text_part
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message, more_of

ROLES = ("system", "developer", "user", "assistant")


class MessagesLayout:
    """A row of chat messages, `{"messages": [{"role", "content"}]}`.

    A part of type `X_url` or `input_X` is a medium of modality X: by path, by a data URI, or in base64 beside its
    format. A part of type `X` holds it under `X`, `url`, `path`, `base64` or `source`, or stands for one of the row's
    `Xs` or `X`: the next, as a tag in a user's text does, or that of its `index`. Media that a message lists for itself
    stand before its text. The order of parts is their order in the prompt. An answer of `weight`, `loss` or `train` 0
    is not learned.

    Args:
        tags: By modality; parts of others are errors.
        system: System message of conversations that have none.
        repeated_tags: What further tags of a row with one medium mean: `error`, `repeat` it, or `drop` them.
    """

    def __init__(self, tags: Mapping[str, str], *, system: str | None = None, repeated_tags: str = "error") -> None:
        self._repeated_tags = repeated_tags
        self.system = system
        self._tags = tags

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""
        given = row.get("messages")
        if not isinstance(given, list):
            raise DataError(f"a row is an object with a list of 'messages'{_remedy(row)}")
        refuse_unread_keys(row)
        parts = PartReader(row, media, self._tags, self._repeated_tags)
        messages = [_read_message(message, i, parts) for i, message in enumerate(given)]
        parts.check_all_used()
        opening = [m for m in messages[:1] if m["role"] == "system"]
        turns = messages[len(opening) :]
        if turns and turns[0]["role"] == "assistant":
            turns = turns[1:]  # answers nothing
        check_turns([(m["role"], _text_of(m)) for m in turns], len(messages) - len(turns))
        system = system_message(row, _text_of(opening[0]) if opening else None, self.system)
        if not opening and system is not None:
            opening = [{"role": "system", "content": [text_part(system)]}]
        return [*opening, *turns]


def _remedy(row: Mapping[str, Any]) -> str:
    if "role" in row and "content" in row:
        return '; this one is a message: put the list of them under that key, {"messages": [...]}'
    if row.get("conversations") is None:
        return f"; this one has {shown(list(row))}"
    return "; this one has 'conversations' in their place, which the formats llava and sharegpt read"


def _read_message(message: Any, index: int, parts: PartReader) -> Message:
    where = f"message {index}"
    role = _role_of(message, where)
    learned = is_learned(message, where)
    content = message.get("content")
    parts_given = [text_part(content)] if isinstance(content, str) else content
    if not isinstance(parts_given, list):
        raise DataError(f"{where}: content is {type(content).__name__}, not text or a list of parts")
    listed, read = parts.list_of(message), []
    for i, part in enumerate(parts_given):
        one = parts.read(part, place := f"{where}, part {i}")
        read += parts.at_tags(one["text"], place) if role == "user" and one["type"] == "text" else [one]
    read = [*parts.left_of(listed, where), *read]
    if role != "user" and any(part["type"] != "text" for part in read):
        raise DataError(f"{where}: media stand in the user's messages, not in the {role}'s")
    result = cast(Message, {"role": role, "content": read, **more_of(message)})
    if role == "assistant" and not learned:
        result["weight"] = 0
    return result


def _role_of(message: Any, where: str) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if isinstance(message, dict) and "from" in message and role is None:
        raise DataError(
            f"{where} has 'from' and 'value' in place of 'role' and 'content': call the list 'conversations', which "
            "the format sharegpt reads"
        )
    if not isinstance(role, str) or role not in ROLES:
        given = role[:40] if isinstance(role, str) else shown(role)
        raise DataError(f"{where}: {unknown_name('role', given, ROLES)}")
    return "system" if role == "developer" else role


def _text_of(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
