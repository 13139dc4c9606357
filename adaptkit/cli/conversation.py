"""The conversation of `adaptkit chat`: what was said, what is attached to the next prompt, and its file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.media import SourceReader
from adaptkit.files.writing import write_json
from adaptkit.serving.backends import MAX_FILE_BYTES, Backend


@dataclass(frozen=True)
class Medium:
    """A file beside a prompt; it is read when it is attached.

    Attributes:
        name: Of its modality.
        path: Where it was read.
        data: Its content.
    """

    name: str
    path: Path
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Turn:
    """What one side said.

    Attributes:
        role: `user` or `assistant`.
        text: In words.
        media: Before the words.
        workflow: Who answered.
    """

    role: str
    text: str
    media: tuple[Medium, ...] = ()
    workflow: str = ""

    def message(self, key: str = "") -> dict[str, Any]:
        """As transformers writes it; media by their content, or, with the key `path`, by where they lie."""
        if not self.media:
            return {"role": self.role, "content": self.text}
        media = [{"type": m.name, **({key: str(m.path)} if key else {m.name: m.data})} for m in self.media]
        return {"role": self.role, "content": [*media, {"type": "text", "text": f"\n{self.text}"}]}


@dataclass
class Conversation:
    """What was said so far, and what will be said with the next prompt.

    Attributes:
        system: The system message; may be empty.
        turns: By turns the user's and the assistant's.
        attached: Media of the next prompt.
    """

    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    attached: list[Medium] = field(default_factory=list)

    def question(self, prompt: str) -> Turn:
        """The next turn of the user."""
        return Turn("user", prompt, tuple(self.attached))

    def messages(self, question: Turn | None = None, key: str = "") -> list[dict[str, Any]]:
        """The conversation as transformers writes it, and the question at its end; `key` as in `Turn.message`."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [turn.message(key) for turn in [*self.turns, *([question] if question else [])]]

    def add(self, question: Turn, answer: Turn) -> None:
        """Keep a question and its answer; what was attached has been sent."""
        self.turns += [question, answer]
        self.attached = []

    def save(self, path: Path) -> None:
        """Write it as JSON: messages as transformers reads them, with the workflow of each answer."""
        messages = self.messages(key="path")
        for message, turn in zip(messages[len(messages) - len(self.turns) :], self.turns, strict=True):
            message |= {"workflow": turn.workflow} if turn.workflow else {}
        write_json(path, {"messages": messages})


def load_conversation(path: Path, backend: Backend) -> Conversation:
    """Read what `Conversation.save` wrote.

    Raises:
        DataError: It is another file, or a medium that it names is missing.
    """
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
        systems = [message["content"] for message in messages if message["role"] == "system"]
        turns = [_read_turn(message, backend) for message in messages if message["role"] != "system"]
        roles = [turn.role for turn in turns]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError("its turns are not the user's and the assistant's by turns")
        return Conversation("\n\n".join(systems), turns)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a conversation that /save wrote: {type(error).__name__}: {error}.") from error


def _read_turn(message: Mapping[str, Any], backend: Backend) -> Turn:
    turn = Turn(message["role"], "", workflow=str(message.get("workflow", "")))
    content = message["content"]
    if isinstance(content, str):
        return replace(turn, text=content)
    *media, text = content
    files = tuple(read_medium(part["type"], part["path"], backend) for part in media)
    return replace(turn, text=str(text["text"]).removeprefix("\n"), media=files)


def read_medium(name: str, file: str, backend: Backend) -> Medium:
    """Read a file of a modality, and see whether it is one.

    Raises:
        DataError: It is missing or damaged, or nothing takes media of this modality.
    """
    path = as_path(file).absolute()
    data, _ = SourceReader(f"{name} file", "a path", MAX_FILE_BYTES).read(path)
    backend.read(name, path)
    return Medium(name, path, data)


def as_path(text: str) -> Path:
    """A path as it was typed: as it stands, or quoted and escaped as a shell wants it."""
    path = Path(text).expanduser()
    words = _split(text)
    return path if path.exists() or len(words) != 1 else Path(words[0]).expanduser()


def _split(text: str) -> Sequence[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an open quote
        return ()
