"""Messages as transformers and OpenAI write them, and the media that stand beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from adaptkit.errors import DataError, unknown_name, wrong_type
from adaptkit.interfaces import Message

SOURCE_KEYS = ("path", "url", "base64", "data")
END = "<|end of the message to continue|>"
"""Part type of the mark at which a message that is to be continued is cut."""


def normalised(messages: Sequence[Mapping[str, Any]], modalities: Collection[str]) -> list[Message]:
    """Messages whose parts are `{"type": modality, modality: source}`.

    A part may also be `{"type": "image", "path": source}` and its kin, as transformers writes it, or
    `{"type": "image_url", "image_url": {"url": source}}`, as OpenAI does.

    Raises:
        DataError: A message or part is malformed.
    """
    found: list[Message] = []
    for message in _listed(messages, "messages", "a list of messages"):
        if not isinstance(message, Mapping):
            raise DataError(wrong_type("message", '{"role": ..., "content": ...}', message))
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts = [] if parts is None else _listed(parts, "content of a message", "text or a list of parts")
        parts = [_normalised_part(part, modalities) for part in parts]
        found.append(cast(Message, {**message, "role": message.get("role", ""), "content": parts}))
    return found


def _listed(value: Any, what: str, needed: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise DataError(wrong_type(what, needed, value))
    return list(value)


def _normalised_part(part: Any, modalities: Collection[str]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        return part
    if kind.removesuffix("_url") in modalities and kind in part:
        kind = kind.removesuffix("_url")
        address = part.get(f"{kind}_url")
        if address is not None:
            return {"type": kind, kind: address.get("url") if isinstance(address, Mapping) else address}
    if kind in modalities and kind not in part:
        sources = [part[key] for key in SOURCE_KEYS if part.get(key) is not None]
        if len(sources) == 1:
            return {"type": kind, kind: sources[0]}
    if kind != "text" and kind not in modalities:
        raise DataError(unknown_name("part type", kind, ["text", *modalities]))
    return part


def open_ended(messages: Sequence[Message]) -> list[Message]:
    """Messages whose last one ends in a mark, at which to cut."""
    if not messages:
        return []
    *before, last = messages
    return [*before, {**last, "content": [*last["content"], {"type": END, END: True}]}]


def with_stand_ins(messages: Sequence[Message]) -> list[Message]:
    """Messages whose media all have a source, as rendering needs."""
    return [{**m, "content": [_with_source(part, True) for part in m["content"]]} for m in messages]


def with_sources(messages: Sequence[Message], queues: Mapping[str, list[Any]]) -> list[Message]:
    """Messages whose parts without a source take the next one that was given beside them."""
    filled: list[Message] = []
    for message in messages:
        parts = [
            _with_source(part, queues[part["type"]].pop(0)) if _is_open(part) and queues.get(part["type"]) else part
            for part in message["content"]
        ]
        filled.append({**message, "content": parts})
    return filled


def _is_open(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return isinstance(kind, str) and kind != "text" and part.get(kind) is None


def _with_source(part: Any, source: Any) -> Any:
    return {**part, part["type"]: source} if _is_open(part) else part


def kind_of(value: Any) -> str:
    if isinstance(value, list | tuple):
        other = next((one for one in value if not isinstance(one, str)), None)
        return "an empty list" if other is None else f"a list that holds a value of type {type(other).__name__}"
    return f"of type {type(value).__name__}"


def flatten(value: Any) -> list[Any]:
    """Items of nested lists; a list that holds a number is an item itself, such as samples with their rate."""
    if isinstance(value, (list, tuple)) and not any(isinstance(one, (int, float)) for one in value):
        return [item for one in value for item in flatten(one)]
    return [value]
