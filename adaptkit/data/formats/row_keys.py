"""Keys of public layouts that say what a conversation means: they are read, or the row is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptkit.data.media import shown
from adaptkit.errors import DataError
from adaptkit.interfaces import Message

_TOOLS = "declares tools, which the prompt would not name"
_PREFERENCE = "says which answer is preferred, and every answer is learned as it is"
_UNREAD = {
    "tools": _TOOLS,
    "functions": _TOOLS,
    "documents": "lists documents, which the prompt would not have",
    "chat_template_kwargs": "sets options of the chat template, which would not be used",
    "history": "has earlier turns, which would be missing",
    **dict.fromkeys(("rejected", "rejected_response", "rejected_messages", "rejected_conversations"), _PREFERENCE),
}
_SYSTEM = ("system", "system_prompt", "system_message")
_UNDESIRED = ("label", "kto_tag", "kto_label")
_LEARNED = ("weight", "loss", "train", "loss_scale", "loss_weight")


def refuse_unread_keys(row: Mapping[str, Any]) -> None:
    """Make sure that a row of a conversation has no key that says more about it than is read.

    Raises:
        DataError: It has; the message names it.
    """
    for key, reason in _UNREAD.items():
        if row.get(key) not in (None, "", [], {}, "[]", "null"):
            raise DataError(
                f"{key!r} {reason}: write what it says into the turns, or take the key out", kind="conversation"
            )
    for key in _UNDESIRED:
        if row.get(key) is False:
            raise DataError(
                f"{key!r} is false: the answer is not to be learned. Leave the row out", kind="conversation"
            )


def system_message(row: Mapping[str, Any], first: Any, default: str | None) -> str | None:
    """The system message of a row: its own, under `system` or `system_prompt`, or as a first turn, or else a default.

    Args:
        first: What the first turn says, where that is the system's; else None.
        default: Where the row has none.

    Raises:
        DataError: It is not text, or the row has two that differ.
    """
    own = next((row[key] for key in _SYSTEM if row.get(key) not in (None, "")), None)
    first = None if first == "" else first
    for value in (own, first):
        if value is not None and not isinstance(value, str):
            raise DataError(f"the system message must be text, not {type(value).__name__}")
    if own is not None and first is not None and own != first:
        raise DataError("two system messages: one under 'system', another as the first turn")
    return next((value for value in (first, own, default) if value is not None), None)


def is_learned(turn: Mapping[str, Any], where: str) -> bool:
    """Whether an answer is to be learned and not only read, by its `weight` (OpenAI), `loss` (ms-swift) or `train`.

    Raises:
        DataError: It is given, and neither 0 nor 1; or the turn calls tools.
    """
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            raise DataError(
                f"{where} calls tools, and calls are not learned: write them as text, or leave the conversation out",
                kind="conversation",
            )
    given = {key: turn[key] for key in _LEARNED if turn.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise DataError(f"{where}: its {key} is {shown(value)}; it may be 0 or 1")
    if len({bool(value) for value in given.values()}) > 1:
        raise DataError(f"{where}: {' and '.join(given)} contradict each other")
    return all(given.values())


def refuse_unplaced(row: Mapping[str, Any], messages: Sequence[Message]) -> None:
    """Make sure that no text has the tag of something that the row lists and nothing puts there.

    Raises:
        DataError: One has, such as `<bbox>` beside a list of `bboxes`.
    """
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    for key, value in row.items():
        if not value or not isinstance(value, list | Mapping):
            continue
        for tag in {f"<{key}>", f"<{str(key).removesuffix('s')}>", f"<{str(key).removesuffix('es')}>"}:
            if any(tag in text for text in texts):
                raise DataError(
                    f"a text has {tag}, and nothing puts there what is under {str(key)!r:.80}, {shown(value)}. "
                    "Write it into the text: the tag would be learned as it stands",
                    kind="conversation",
                )
