"""Forms that rows of conversations come in, brought to the ones that the layouts read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptkit.data.media import Media, media_key, shown
from adaptkit.data.rows import Layout
from adaptkit.errors import DataError
from adaptkit.files.text import parse_json
from adaptkit.interfaces import Message

_LISTS = ("conversations", "messages", "texts")


class ConversationRows:
    """Rows of conversations as people have them.

    A list of turns may be text that holds JSON, as columns of tables do. `texts`, a list of questions and answers
    under `user` and `assistant`, is a conversation, whose media stand in front where no text has their tags.

    Args:
        layout: Reads the rows.
        tags: Tag of each modality.
        train_on: Whether all answers are learned, or the last of each conversation.
    """

    def __init__(self, layout: Layout, tags: Mapping[str, str], train_on: str = "all") -> None:
        self._layout = layout
        self._tags = tags
        self._train_on = train_on

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""
        row = {**row, **{key: _parsed(row[key], key) for key in _LISTS if _may_be_json(row.get(key))}}
        if row.get("conversations") is None and row.get("messages") is None and row.get("texts") is not None:
            row["conversations"] = self._turns(row)
        messages = self._layout.read(row, media)
        return messages if self._train_on == "all" else _only_the_last(messages)

    def _turns(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        turns = [turn for number, pair in enumerate(_pairs(row["texts"])) for turn in _of_pair(pair, number)]
        if turns and not any(tag in turn["value"] for tag in self._tags.values() for turn in turns[::2]):
            turns[0]["value"] = "".join(self._front(row)) + turns[0]["value"]
        return turns

    def _front(self, row: Mapping[str, Any]) -> list[str]:
        """Tags of the row's media, one line each."""
        listed = {tag: row.get(media_key(row, modality)) for modality, tag in self._tags.items()}
        counts = {
            tag: len(found) if isinstance(found, list) else int(found is not None) for tag, found in listed.items()
        }
        return [f"{tag}\n" for tag, count in counts.items() for _ in range(count)]


def _pairs(texts: Any) -> Sequence[Any]:
    if not isinstance(texts, list) or not texts:
        raise DataError(f"'texts' must be a list of questions and answers, not {shown(texts)}")
    return texts


def _of_pair(pair: Any, number: int) -> list[dict[str, Any]]:
    said = {key: pair.get(key) if isinstance(pair, dict) else None for key in ("user", "assistant")}
    if not all(isinstance(text, str) for text in said.values()):
        raise DataError(f"texts[{number}] must have texts under 'user' and 'assistant', not be {shown(pair)}")
    return [{"from": "human", "value": said["user"]}, {"from": "gpt", "value": said["assistant"]}]


def _may_be_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip()[:1] in ("[", "{")


def _parsed(text: str, key: str) -> Any:
    """The list that a text holds.

    Raises:
        DataError: It holds none.
    """
    value = parse_json(text, f"the text under {key!r}")
    if not isinstance(value, list):
        raise DataError(f"the text under {key!r} is the JSON of {type(value).__name__}, not of a list of turns")
    return value


def _only_the_last(messages: Sequence[Message]) -> list[Message]:
    """Messages of which the last answer alone is learned."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [{**message, "weight": 0} if i in answers[:-1] else message for i, message in enumerate(messages)]
