"""Reader of LLaVA and ALLaVA files: a JSON list of conversations between "human" and "gpt"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message, Sample

ROLES = {"human": "user", "gpt": "assistant"}


class LlavaSource:
    """The conversations of one file. Rows are checked when they are read: a bad one spoils only itself.

    A row names its media under their modality's name, as one path or a list; each tag in a human turn stands
    for the next of them. A leading answer is dropped, as LLaVA's trainer does. Unknown keys are ignored.

    Args:
        path: The JSON file.
        media: Folder that media paths are relative to.
        tags: Tag of each modality, `{"image": "<image>"}`.
        limit: Read the first so many rows only.
        move_media_to_front: Put each turn's media before its text, one line each. Where a row has more tags
            than media, those of a turn count once.
        system: System message put before every conversation.

    Attributes:
        num_dropped_turns: How many rows begin with an answer, which is dropped.

    Raises:
        DataError: The file is missing, no JSON list, or empty.
    """

    def __init__(
        self,
        path: Path,
        *,
        media: Path,
        tags: Mapping[str, str],
        limit: int | None = None,
        move_media_to_front: bool = False,
        system: str | None = None,
    ) -> None:
        self.path = path
        self.media = media
        self.move_media_to_front = move_media_to_front
        self.system = system
        self._modalities = {tag: modality for modality, tag in tags.items()}
        self._tag_pattern = re.compile("(" + ("|".join(map(re.escape, self._modalities)) or r"(?!)") + ")")
        self._rows = _load_rows(path)
        self._length = len(self._rows) if limit is None else min(limit, len(self._rows))
        self.num_dropped_turns = sum(_begins_with_answer(self._rows[i]) for i in range(self._length))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Read one row.

        Raises:
            DataError: The row is malformed or its media are missing; the message names file, index and id.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"row {index} of {self._length} in {self.path}")
        row = self._rows[index]
        location = f"{self.path}[{index}]"
        if not isinstance(row, dict):
            raise DataError(f"{location}: a row is an object with 'conversations', not {type(row).__name__}")
        name = str(row.get("id", index))
        try:
            return Sample(name, self._read_messages(row), location)
        except DataError as error:
            raise DataError(f"{location} (id {name!r:.80}): {error}") from error

    def _read_messages(self, row: dict[str, Any]) -> list[Message]:
        turns = _read_turns(row)
        media = {modality: self._media_paths(row, modality) for modality in self._modalities.values()}
        # Text and tags alternate: those at odd places are tags. An answer is all text.
        pieces = [self._tag_pattern.split(text) if role == "user" else [text] for role, text in turns]
        if self.move_media_to_front:
            num_tags = sum(len(turn[1::2]) for turn in pieces)
            collapse = num_tags > sum(map(len, media.values()))
            pieces = [_move_tags_to_front(turn, collapse) for turn in pieces]
        self._check_counts(pieces, media)
        remaining = {modality: iter(paths) for modality, paths in media.items()}
        messages: list[Message] = []
        if self.system is not None:
            messages.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        for (role, _), turn in zip(turns, pieces):
            messages.append({"role": role, "content": self._parts(turn, remaining)})
        return messages

    def _media_paths(self, row: dict[str, Any], modality: str) -> list[Path]:
        value = row.get(modality)
        paths = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
            raise DataError(f"{modality!r} must be a path or a list of paths, not {value!r:.80}")
        return [existing_medium(self.media / path, modality) for path in paths]

    def _check_counts(self, pieces: Sequence[list[str]], media: Mapping[str, list[Path]]) -> None:
        tags = [tag for turn in pieces for tag in turn[1::2]]
        for tag, modality in self._modalities.items():
            num_tags, num_media = tags.count(tag), len(media[modality])
            if num_tags != num_media:
                raise DataError(
                    f"{num_media} under {modality!r}, but {num_tags} {tag} in human turns: the file must "
                    "place each with a tag of its own"
                )

    def _parts(self, pieces: list[str], remaining: Mapping[str, Iterator[Path]]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for i, piece in enumerate(pieces):
            if i % 2:
                modality = self._modalities[piece]
                parts.append({"type": modality, modality: next(remaining[modality])})
            elif piece:
                parts.append({"type": "text", "text": piece})
        return parts


def write_llava(path: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Path:
    """Write conversations in this format; media are named as they are in the samples.

    Args:
        path: The JSON file; its folder is made.
        samples: What to write.
        tags: Tag of each modality.
    """
    speakers = {role: speaker for speaker, role in ROLES.items()}
    rows: list[dict[str, Any]] = []
    for sample in samples:
        row: dict[str, Any] = {"id": sample.id, "conversations": []}
        for message in sample.messages:
            value = ""
            for part in message["content"]:
                kind = part["type"]
                value += part["text"] if kind == "text" else tags[kind]
                if kind != "text":
                    row.setdefault(kind, []).append(str(part[kind]))
            row["conversations"].append({"from": speakers[message["role"]], "value": value})
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=0, ensure_ascii=False), encoding="utf-8")
    return path


def _move_tags_to_front(pieces: list[str], collapse: bool) -> list[str]:
    tags = pieces[1::2]
    if not tags:
        return pieces
    moved = [""]
    for tag in dict.fromkeys(tags) if collapse else tags:
        moved += [tag, "\n"]
    moved[-1] = ("\n" + "".join(pieces[::2]).strip()).rstrip()
    return moved


def existing_medium(path: Path, modality: str) -> Path:
    """The path of a medium, which must be a file.

    Raises:
        DataError: It is not there, or cannot be reached.
    """
    try:
        found = path.is_file()
    except OSError as error:
        raise DataError(f"{modality!r} cannot be reached at {str(path)!r}: {error.strerror}") from error
    if not found:
        raise DataError(f"{modality!r} is missing: no file {str(path)!r}")
    return path


def _read_turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of each turn, beginning with the user's."""
    conversation = row.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise DataError("'conversations' must be a list of turns")
    first = int(_begins_with_answer(row))
    turns = [_read_turn(turn, i) for i, turn in enumerate(conversation)][first:]
    for i, (role, text) in enumerate(turns, start=first):
        expected = ("user", "assistant")[(i - first) % 2]
        if role != expected:
            raise DataError(f"turn {i} is from the {role}: the user and the assistant must take turns")
        if role == "assistant" and not text.strip():
            raise DataError(f"turn {i}: the answer is empty")
    if len(turns) < 2:
        raise DataError("no question with an answer")
    return turns


def _read_turn(turn: Any, index: int) -> tuple[str, str]:
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        raise DataError(f"turn {index} must be an object with 'from' and 'value'")
    speaker, text = turn["from"], turn.get("value")
    if speaker not in ROLES:
        raise DataError(f"turn {index}: {unknown_name('speaker', speaker[:40], ROLES)}")
    if not isinstance(text, str):
        raise DataError(f"turn {index}: 'value' must be text, not {type(text).__name__}")
    return ROLES[speaker], text


def _begins_with_answer(row: Any) -> bool:
    conversation = row.get("conversations") if isinstance(row, dict) else None
    first = conversation[0] if isinstance(conversation, list) and conversation else None
    return isinstance(first, dict) and first.get("from") == "gpt"


class _Rows(list[Any]):
    """A list that can be referred to weakly."""


_loaded: WeakValueDictionary[tuple[str, int, int], _Rows] = WeakValueDictionary()


def _load_rows(path: Path) -> _Rows:
    """Rows of a file; sources of the same file share them, so that files of gigabytes are parsed once."""
    try:
        status = path.stat()
        key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
        rows = _loaded.get(key)
        if rows is None:
            rows = _loaded[key] = _parse_rows(path)
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror}") from error
    return rows


def _parse_rows(path: Path) -> _Rows:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a valid JSON file: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a LLaVA file is a JSON list of rows, not {type(rows).__name__}")
    if not rows:
        raise DataError(f"{path}: the dataset is empty")
    return _Rows(rows)
