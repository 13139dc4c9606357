"""Reader of OpenAI's chat messages: roles, and content as text or as a list of parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptkit.data.llava import check_turns
from adaptkit.data.rows import RowSource, existing_medium, load_rows
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message

ROLES = ("system", "developer", "user", "assistant")
REMOTE = ("http://", "https://", "file://", "ftp://")


class MessagesSource(RowSource):
    """The conversations of one file, `{"messages": [{"role", "content"}]}` each.

    A part of type `X_url` or `input_X` is a medium of modality X: by path, by a data URI, or in base64 beside its
    format. The order of parts is their order in the prompt.

    Args:
        path: JSON Lines, or a JSON list.
        media: Folder that media paths are relative to.
        tags: By modality; parts of others are errors.
        limit: Read the first so many rows only.
        system: System message of conversations that have none.

    Raises:
        DataError: The file is missing, malformed, or empty.
    """

    def __init__(
        self, path: Path, *, media: Path, tags: Mapping[str, str], limit: int | None = None, system: str | None = None
    ) -> None:
        super().__init__(load_rows(path), str(path), limit)
        self.media = media
        self.system = system
        self._modalities = list(tags)

    def _read(self, row: Mapping[str, Any]) -> list[Message]:
        given = row.get("messages")
        if not isinstance(given, list):
            raise DataError("a row is an object with a list of 'messages'")
        messages = [self._message(message, i) for i, message in enumerate(given)]
        opening = [m for m in messages[:1] if m["role"] == "system"]
        turns = messages[len(opening) :]
        if turns and turns[0]["role"] == "assistant":
            turns = turns[1:]  # answers nothing
        check_turns([(m["role"], _text_of(m)) for m in turns], len(messages) - len(turns))
        if not opening and self.system is not None:
            opening = [{"role": "system", "content": [{"type": "text", "text": self.system}]}]
        return [*opening, *turns]

    def _message(self, message: Any, index: int) -> Message:
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            raise DataError(f"message {index}: {unknown_name('role', str(role)[:40], ROLES)}")
        role = "system" if role == "developer" else role
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise DataError(f"message {index}: content is {type(content).__name__}, not text or a list of parts")
        read = [self._part(part, f"message {index}, part {i}") for i, part in enumerate(parts)]
        if role != "user" and any(part["type"] != "text" for part in read):
            raise DataError(f"message {index}: media stand in the user's messages, not in the {role}'s")
        return {"role": role, "content": read}

    def _part(self, part: Any, where: str) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise DataError(f"{where}: a part is an object with a 'type'")
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise DataError(f"{where}: a text part holds {type(part.get('text')).__name__}, not text")
            return {"type": "text", "text": part["text"]}
        modality = kind.removesuffix("_url").removeprefix("input_")
        if modality not in self._modalities:
            known = ["text", *(name for m in self._modalities for name in (f"{m}_url", f"input_{m}"))]
            raise DataError(f"{where}: {unknown_name('part type', kind[:40], known)}")
        return {"type": modality, modality: self._medium(part.get(kind), modality, where)}

    def _medium(self, value: Any, modality: str, where: str) -> Any:
        """A path below the folder of the media, or a data URI."""
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            return f"data:{modality}/{value.get('format') or 'x-unknown'};base64,{value['data']}"
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str) or not url:
            raise DataError(f"{where}: {modality} holds neither 'url' nor 'data'")
        if url[:5].lower() == "data:":
            return url
        if url.lower().startswith(REMOTE):
            raise DataError(f"{where}: {url[:80]} is not fetched. Download it and give its path")
        return existing_medium(self.media / url, modality)


def _text_of(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")
