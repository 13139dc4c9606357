"""What a page shows of a conversation, as the messages that are asked."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.media import SourceReader
from adaptkit.serving.backends import MAX_FILE_BYTES

Part = tuple[str, str]
"""A kind, `text` or a modality, and the text or the path of a file."""

BY_SUFFIX = ("image", "audio")
"""Modalities that the suffix of a file shows."""


def turns_of(history: Iterable[Mapping[str, Any]], modalities: Sequence[str] | None) -> list[tuple[str, list[Part]]]:
    """The questions of a chat that were answered, and their answers, by turns.

    Args:
        history: Messages of gradio; those of one side may follow each other. What is neither text nor a file of the
            user, such as a drawing or an error, was not said.
        modalities: As in `part_of_file`.
    """
    turns: list[tuple[str, list[Part]]] = []
    for message in history:
        role = message["role"]
        parts = [part for entry in message["content"] for part in _parts(entry, role, modalities)]
        if turns and turns[-1][0] == role == "user":
            turns.pop()  # it was not answered
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((role, parts))
    if turns and turns[-1][0] == "user":
        turns.pop()
    return turns


def _parts(entry: Mapping[str, Any], role: str, modalities: Sequence[str] | None) -> list[Part]:
    if entry["type"] == "text":
        text = entry["text"] if role == "user" else from_markdown(entry["text"])
        return [("text", text)] if text else []
    if entry["type"] == "file" and role == "user":
        return [part_of_file(entry["file"]["path"], modalities)]
    return []


def part_of_file(path: str, modalities: Sequence[str] | None) -> Part:
    """A file with its modality: that of its suffix, or the only one that no suffix shows.

    Args:
        path: Of the file.
        modalities: What may be sent; None where that is not known.

    Raises:
        DataError: There is none that it can be of.
    """
    kind = (mimetypes.guess_type(path)[0] or "").partition("/")[0]
    if kind in (BY_SUFFIX if modalities is None else modalities):
        return kind, path
    others = [name for name in modalities or () if name not in BY_SUFFIX]
    if kind not in BY_SUFFIX and len(others) == 1:
        return others[0], path
    taken = "nothing here takes media" if modalities == [] else f"media here are {', '.join(modalities or BY_SUFFIX)}"
    raise DataError(f"{Path(path).name}: {taken}.")


def messages_of(turns: Iterable[tuple[str, Sequence[Part]]], system: str) -> list[dict[str, Any]]:
    """Turns as transformers writes them: media by their content, and before the words.

    Raises:
        DataError: A file is missing, empty or too large.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for role, parts in turns:
        text = "\n".join(value for kind, value in parts if kind == "text")
        media = [{"type": kind, kind: _read(kind, path)} for kind, path in parts if kind != "text"]
        content = [*media, {"type": "text", "text": f"\n{text}"}] if media else text
        messages.append({"role": role, "content": content})
    return messages


def _read(kind: str, path: str) -> bytes:
    return SourceReader(f"{kind} file", "a path", MAX_FILE_BYTES).read(path)[0]


_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), ("![", "!&#91;"))
"""Outside code, Markdown would take these for entities, tags and pictures."""


def to_markdown(text: str) -> str:
    """An answer as Markdown in which tags and pictures are shown as they are written, and ask for nothing."""
    return _outside_code(text, _ESCAPES)


def from_markdown(text: str) -> str:
    """The answer that `to_markdown` was given."""
    return _outside_code(text, [(escaped, plain) for plain, escaped in reversed(_ESCAPES)])


def _outside_code(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    pieces = _CODE.split(text)
    for old, new in pairs:
        pieces[::2] = [piece.replace(old, new) for piece in pieces[::2]]
    return "".join(pieces)
