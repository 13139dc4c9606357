"""LLaVA's layout of a row: a conversation between "human" and "gpt", with media by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

from adaptkit.data.formats.parts import AGAIN
from adaptkit.data.formats.row_keys import is_learned, refuse_unread_keys, system_message
from adaptkit.data.media import Media, shown
from adaptkit.data.rows import parts_at_tags, tag_pattern, text_part, without_tags
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message, more_of

ROLES = {"human": "user", "gpt": "assistant"}
_SHAREGPT_ROLES = ("user", "assistant", "system")


class Turn(NamedTuple):
    """One turn: its role, its text, whether an answer is learned, and what it says beside its text."""

    role: str
    text: str
    learned: bool
    more: Mapping[str, Any] = {}


class LlavaLayout:
    """A row as LLaVA and ALLaVA write it.

    A row names its media under their modality's name, as one or a list; each tag in a human turn stands for the next
    of them. A leading answer is dropped, as LLaVA's trainer does. An answer of `weight`, `loss` or `train` 0 is read
    and not learned. Unknown keys are ignored but for those that say what the conversation means (`meaning`).

    Args:
        tags: Tag of each modality, `{"image": "<image>"}`.
        move_media_to_front: Put each turn's media before its text, one line each. Where a row has more tags
            than media, those of a turn count once.
        system: System message of conversations that have none, under `system`.
        repeated_tags: What further tags of a row with one medium mean: `error`, `repeat` it, or `drop` them.
    """

    def __init__(
        self,
        tags: Mapping[str, str],
        *,
        move_media_to_front: bool = False,
        system: str | None = None,
        repeated_tags: str = "error",
    ) -> None:
        self.repeated_tags = repeated_tags
        self.move_media_to_front = move_media_to_front
        self.system = system
        self._modalities = {tag: modality for modality, tag in tags.items()}
        self._tag_pattern = tag_pattern(tags)

    def read(self, row: Mapping[str, Any], media: Media) -> list[Message]:
        """The turns of one row; raises `DataError` where it is malformed or its media are missing."""
        refuse_unread_keys(row)
        system, turns = self._read_turns(row)
        keys = {modality: self._media_key(row, modality) for modality in self._modalities.values()}
        found = {modality: media.find_all(row.get(key), key, modality) for modality, key in keys.items()}
        # Text and tags alternate: those at odd places are tags. An answer is all text.
        pieces = [self._tag_pattern.split(turn.text) if turn.role == "user" else [turn.text] for turn in turns]
        if self.move_media_to_front:
            num_tags = sum(len(turn[1::2]) for turn in pieces)
            collapse = num_tags > sum(map(len, found.values()))
            pieces = [_move_tags_to_front(turn, collapse) for turn in pieces]
        pieces, found = self._with_repeated_tags(pieces, found)
        self._check_counts(pieces, found, keys)
        remaining = {modality: iter(items) for modality, items in found.items()}
        messages: list[Message] = [] if system is None else [{"role": "system", "content": [text_part(system)]}]
        for turn, texts in zip(turns, pieces):
            content = parts_at_tags(texts, self._modalities, lambda modality: next(remaining[modality]))
            message = cast(Message, {"role": turn.role, "content": content, **turn.more})
            messages.append(message if turn.learned else {**message, "weight": 0})
        return messages

    def _read_turns(self, row: Mapping[str, Any]) -> tuple[str | None, list[Turn]]:
        return system_message(row, None, self.system), read_turns(row, ROLES)

    def _media_key(self, row: Mapping[str, Any], modality: str) -> str:
        return modality

    def _with_repeated_tags(
        self, pieces: list[list[str]], media: dict[str, list[Any]]
    ) -> tuple[list[list[str]], dict[str, list[Any]]]:
        """Texts and media once a row's one medium is cited as often as there are tags, or further tags are dropped."""
        tags = [tag for turn in pieces for tag in turn[1::2]]
        again = {t: m for t, m in self._modalities.items() if len(media[m]) == 1 and tags.count(t) > 1}
        if self.repeated_tags == "repeat":
            return pieces, {**media, **{modality: media[modality] * tags.count(tag) for tag, modality in again.items()}}
        if self.repeated_tags == "drop":
            cited: list[str] = []
            pieces = [without_tags(turn, lambda tag: tag in again and _is_cited(tag, cited)) for turn in pieces]
        return pieces, media

    def _check_counts(
        self, pieces: Sequence[list[str]], media: Mapping[str, list[Any]], keys: Mapping[str, str]
    ) -> None:
        tags = [tag for turn in pieces for tag in turn[1::2]]
        for tag, modality in self._modalities.items():
            num_tags, num_media = tags.count(tag), len(media[modality])
            if num_tags != num_media:
                raise DataError(
                    f"{num_media} under {keys[modality]!r}, but {num_tags} {tag} in human turns: the file "
                    f"must place each with a tag of its own{AGAIN if num_media == 1 and num_tags > 1 else ''}",
                    kind="tag_count",
                )


def _is_cited(tag: str, cited: list[str]) -> bool:
    """Whether a tag was there before; from now on it was."""
    cited.append(tag)
    return cited.count(tag) > 1


def _move_tags_to_front(pieces: list[str], collapse: bool) -> list[str]:
    tags = pieces[1::2]
    if not tags:
        return pieces
    moved = [""]
    for tag in dict.fromkeys(tags) if collapse else tags:
        moved += [tag, "\n"]
    moved[-1] = ("\n" + "".join(pieces[::2]).strip()).rstrip()
    return moved


def read_turns(row: Mapping[str, Any], roles: Mapping[str, str]) -> list[Turn]:
    """The turns `{"from", "value"}` of a row, beginning with the user's; a leading answer is dropped.

    Args:
        row: Has a list of turns under `conversations`.
        roles: Role of each speaker.

    Raises:
        DataError: A turn is malformed, comes out of turn, or answers nothing.
    """
    conversation = row.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise DataError(f"'conversations' must be a list of turns{_remedy(row, conversation)}")
    turns = [_read_turn(turn, i, roles) for i, turn in enumerate(conversation)]
    first = int(turns[0].role == "assistant")
    check_turns([(turn.role, turn.text) for turn in turns[first:]], first)
    return turns[first:]


def _remedy(row: Mapping[str, Any], conversation: Any) -> str:
    if conversation is not None:
        return f", not {shown(conversation)}"
    if row.get("messages") is not None:
        return "; the row has 'messages' in its place, which the format messages reads"
    if "from" in row and "value" in row:
        return '; the row is a turn: a conversation is an object, {"conversations": [...]}, with its turns in the list'
    nearest = get_close_matches("conversations", [str(key).lower() for key in row], n=1, cutoff=0.8)
    near = next((str(key) for key in row if str(key).lower() in nearest), None)
    meant = f"; is {near!r:.80} meant?" if near is not None else ""
    return f"{meant}; the row has {shown(list(row))}. What has columns in their place is read by the format table"


def check_turns(turns: Sequence[tuple[str, str]], first: int = 0) -> None:
    """The user and the assistant take turns, and every answer says something.

    Args:
        turns: Role and text of each; texts of media alone may be empty.
        first: Number of the first, for messages.

    Raises:
        DataError: They do not.
    """
    for i, (role, text) in enumerate(turns, start=first):
        expected = ("user", "assistant")[(i - first) % 2]
        if role != expected:
            raise DataError(f"turn {i} is from the {role}: the user and the assistant must take turns")
        if role == "assistant" and not text.strip():
            raise DataError(f"turn {i}: the answer is empty", kind="empty_answer")
    if len(turns) < 2:
        raise DataError("no question with an answer", kind="empty_answer")


def _read_turn(turn: Any, index: int, roles: Mapping[str, str]) -> Turn:
    speaker = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    if not isinstance(speaker, str):
        raise DataError(f"turn {index} must be an object with 'from' and 'value', or 'role' and 'content'")
    key = "value" if "value" in turn else "content" if "content" in turn else "value"
    text = turn.get(key)
    if speaker not in roles:
        hint = "The format sharegpt reads that one." if speaker in _SHAREGPT_ROLES and speaker not in roles else ""
        raise DataError(f"turn {index}: {unknown_name('speaker', speaker[:40], roles, hint=hint)}")
    if isinstance(text, list):
        raise DataError(f"turn {index}: {key!r} is a list of parts: call the turns 'messages', which may have them")
    if not isinstance(text, str):
        raise DataError(f"turn {index}: {key!r} must be text, not {type(text).__name__}")
    learned = is_learned(turn, f"turn {index}")
    return Turn(roles[speaker], text, learned, more_of(turn))
