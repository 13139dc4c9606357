"""OpenAI's layout of a row: chat messages, with content as text or as a list of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptkit.data.llava import check_turns
from adaptkit.data.media import Media, media_key, shown
from adaptkit.data.rows import tag_pattern, text_part
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message

ROLES = ("system", "developer", "user", "assistant")


class MessagesLayout:
    """A row of chat messages, `{"messages": [{"role", "content"}]}`.

    A part of type `X_url` or `input_X` is a medium of modality X: by path, by a data URI, or in base64 beside its
    format. A part of type `X` holds it under `X`, or stands for the next of the row's `Xs` or `X`, as a tag in a user's
    text does. The order of parts is their order in the prompt.

    Args:
        tags: By modality; parts of others are errors.
        system: System message of conversations that have none.
    """

    def __init__(self, tags: Mapping[str, str], *, system: str | None = None) -> None:
        self.system = system
        self._tags = tags

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""
        given = row.get("messages")
        if not isinstance(given, list):
            raise DataError("a row is an object with a list of 'messages'", kind="malformed")
        parts = _PartReader(row, media, self._tags)
        messages = [_read_message(message, i, parts) for i, message in enumerate(given)]
        parts.check_all_used()
        opening = [m for m in messages[:1] if m["role"] == "system"]
        turns = messages[len(opening) :]
        if turns and turns[0]["role"] == "assistant":
            turns = turns[1:]  # answers nothing
        check_turns([(m["role"], _text_of(m)) for m in turns], len(messages) - len(turns))
        if not opening and self.system is not None:
            opening = [{"role": "system", "content": [text_part(self.system)]}]
        return [*opening, *turns]


def _read_message(message: Any, index: int, parts: _PartReader) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        given = role[:40] if isinstance(role, str) else shown(role)
        raise DataError(f"message {index}: {unknown_name('role', given, ROLES)}", kind="malformed")
    role = "system" if role == "developer" else role
    content = message.get("content")
    parts_given = [text_part(content)] if isinstance(content, str) else content
    if not isinstance(parts_given, list):
        raise DataError(
            f"message {index}: content is {type(content).__name__}, not text or a list of parts", kind="malformed"
        )
    read = []
    for i, part in enumerate(parts_given):
        part = parts.read(part, where := f"message {index}, part {i}")
        read += parts.at_tags(part["text"], where) if role == "user" and part["type"] == "text" else [part]
    if role != "user" and any(part["type"] != "text" for part in read):
        raise DataError(f"message {index}: media stand in the user's messages, not in the {role}'s", kind="malformed")
    return {"role": role, "content": read}


class _PartReader:
    """Reads the parts of one row's messages in their order."""

    def __init__(self, row: Mapping[str, Any], media: Media, tags: Mapping[str, str]) -> None:
        self._row = row
        self._media = media
        self._modalities = list(tags)
        self._by_tag = {tag: modality for modality, tag in tags.items()}
        self._tag_pattern = tag_pattern(tags)
        self._read: set[str] = set()
        self._listed: dict[str, Iterator[Any]] = {}

    def read(self, part: Any, where: str) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise DataError(f"{where}: a part is an object with a 'type'", kind="malformed")
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise DataError(
                    f"{where}: a text part holds {type(part.get('text')).__name__}, not text", kind="malformed"
                )
            return text_part(part["text"])
        modality = kind.removesuffix("_url").removeprefix("input_")
        if modality not in self._modalities:
            known = ["text", *(name for m in self._modalities for name in (f"{m}_url", f"input_{m}"))]
            raise DataError(f"{where}: {unknown_name('part type', kind[:40], known)}", kind="malformed")
        self._read.add(modality)
        value = part.get(kind)
        if value is None and kind == modality:
            return {"type": modality, modality: self._next(modality, where)}
        return {"type": modality, modality: self._medium(value, modality, where)}

    def at_tags(self, text: str, where: str) -> list[dict[str, Any]]:
        """A user's text as parts: each tag in it is the next of the media that the row lists."""
        parts = []
        for i, piece in enumerate(self._tag_pattern.split(text)):
            if i % 2:
                modality = self._by_tag[piece]
                parts.append({"type": modality, modality: self._next(modality, where)})
            elif piece or piece == text:
                parts.append(text_part(piece))
        return parts

    def check_all_used(self) -> None:
        """Media that the row lists beside its messages must have their parts or tags."""
        for modality in self._modalities:
            if modality not in self._read:
                self._list(modality)
        for modality, rest in self._listed.items():
            if next(rest, None) is not None:
                raise DataError(
                    f"the row lists more {modality!r} than its messages have parts or tags of that kind",
                    kind="tag_count",
                )

    def _list(self, modality: str) -> Iterator[Any]:
        if modality not in self._listed:
            name = media_key(self._row, modality)
            self._listed[modality] = iter(self._media.find_all(self._row.get(name), name, modality))
        return self._listed[modality]

    def _next(self, modality: str, where: str) -> Any:
        found = next(self._list(modality), None)
        if found is None:
            raise DataError(
                f"{where}: no {modality} in it, and none left under '{modality}s' or {modality!r} of the row",
                kind="tag_count",
            )
        return found

    def _medium(self, value: Any, modality: str, where: str) -> Any:
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            return f"data:{modality}/{_subtype(value)};base64,{value['data']}"
        if isinstance(value, dict) and "url" in value:
            value = value["url"]
        if value in (None, "", {}):
            raise DataError(f"{where}: {modality} holds neither 'url' nor 'data'", kind="missing_media")
        try:
            return self._media.find(value, modality)
        except DataError as error:
            raise DataError(f"{where}: {error}", kind=error.kind) from error


def _subtype(value: Mapping[str, Any]) -> str:
    given = value.get("format")
    return given if isinstance(given, str) and given else "x-unknown"


def _text_of(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
