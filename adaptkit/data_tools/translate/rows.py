"""Where the texts of a row stand, in the layouts of LLaVA, ShareGPT, chat messages and The Cauldron."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from adaptkit.errors import DataError

_SPEAKERS = ("human", "gpt", "system", "user", "assistant")
_ROLES = ("system", "developer", "user", "assistant")
_TEXT_PARTS = ("text", "input_text", "output_text")


def texts_of(row: Any) -> Iterator[tuple[Any, Any]]:
    """The containers and keys of the texts of a conversation, in their order.

    Raises:
        DataError: The row is not a conversation in one of the layouts.
    """
    if not isinstance(row, dict):
        raise DataError("not an object")
    if isinstance(row.get("system"), str):
        yield row, "system"
    if isinstance(row.get("conversations"), list):
        for turn in row["conversations"]:
            yield from _of_turn(turn, "from", "value", _SPEAKERS)
    elif isinstance(row.get("messages"), list):
        for message in row["messages"]:
            yield from _of_turn(message, "role", "content", _ROLES)
    elif isinstance(row.get("texts"), list):
        for pair in row["texts"]:
            yield from _of_pair(pair)
    else:
        raise DataError("neither 'conversations' nor 'messages'")


def _of_pair(pair: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(pair, dict) or not all(isinstance(pair.get(key), str) for key in ("user", "assistant")):
        raise DataError("a pair without 'user' and 'assistant'")
    yield pair, "user"
    yield pair, "assistant"


def _of_turn(turn: Any, speaker: str, key: str, known: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    if not isinstance(turn, dict) or (turn.get(speaker) not in known and turn.get("role") not in known):
        raise DataError(f"a turn from none of {', '.join(known)}")
    content = turn.get(key, turn.get("content"))
    if isinstance(content, str):
        yield turn, key if key in turn else "content"
    elif isinstance(content, list):
        yield from ((p, "text") for p in content if isinstance(p, dict) and p.get("type") in _TEXT_PARTS)
    else:
        raise DataError("a turn without text")


def with_texts(row: Any, change: Callable[[str], str]) -> Any:
    """A copy of a row whose texts are changed; nothing else is."""
    changed = copy.deepcopy(row)
    for container, key in texts_of(changed):
        if isinstance(container[key], str):
            container[key] = change(container[key])
    return changed
