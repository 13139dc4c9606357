"""One chat: prompts are answered, and what begins with a slash is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from adaptkit.cli.chat_input import QUOTES, Entry
from adaptkit.cli.conversation import Conversation, Turn, as_path, load_conversation, read_medium
from adaptkit.errors import DataError, unknown_name
from adaptkit.serving.backends import AUTO, Backend, Reply, check_choice


class Screen(Protocol):
    """Where answers and notices are shown."""

    def answer(self, reply: Reply) -> tuple[str, bool]:
        """Show an answer as it comes; gives its text, and whether it was stopped."""

    def notice(self, text: str) -> None:
        """Say what was done."""

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Show rows of two cells."""


class Leave(Exception):  # noqa: N818 (no error)
    """The user wants to leave."""


@dataclass
class Chat:
    """A conversation with a backend.

    Attributes:
        backend: Who answers.
        screen: Where.
        workflow: Which of the backend's choices is asked.
        options: Of generation.
        conversation: What was said.
    """

    backend: Backend
    screen: Screen
    workflow: str
    options: Mapping[str, Any]
    conversation: Conversation = field(default_factory=Conversation)
    _saved: set[Path] = field(default_factory=set)

    def take(self, entry: Entry) -> None:
        """Answer a prompt, or do what a command says; an empty entry does nothing.

        Raises:
            AdaptkitError: It cannot be done; the conversation is as it was.
            Leave: The user wants to leave.
        """
        if entry.is_command:
            self._do(entry.text)
        elif entry.text:
            self._ask(entry.text)

    def arguments(self) -> dict[str, Callable[[], Iterable[str]] | None]:
        """What can follow each command, for completion; None stands for a file."""
        modalities = lambda: self.backend.modalities or ("image", "audio")  # noqa: E731
        known: dict[str, Any] = {"workflow": lambda: self.backend.choices, "media": modalities}
        return {name: None if usage == "FILE" else known.get(name, tuple) for name, (usage, _, _) in COMMANDS.items()}

    def _ask(self, prompt: str) -> None:
        question = self.conversation.question(prompt)
        try:
            reply = self.backend.ask(self.conversation.messages(question), self.workflow, self.options)
        except DataError as error:
            if not self.conversation.turns:
                raise
            raise DataError(f"{error} The whole conversation is asked; /reset forgets it.") from error
        text, was_stopped = self.screen.answer(reply)
        if text or not was_stopped:
            self.conversation.add(question, Turn("assistant", text, workflow=reply.workflow))

    def _do(self, line: str) -> None:
        name, _, argument = line[1:].partition(" ")
        name = {"exit": "quit", "?": "help"}.get(name, name)
        if name not in COMMANDS:
            hint = f"A prompt that begins with / stands between {QUOTES}."
            raise DataError(unknown_name("command", f"/{name}", [f"/{known}" for known in COMMANDS], hint=hint))
        usage, _, command = COMMANDS[name]
        argument = argument.strip()
        if usage and not usage.startswith("[") and not argument:
            raise DataError(f"/{name}: write /{name} {usage}.")
        if not usage and argument:
            raise DataError(f"/{name} takes nothing; got {argument!r}.")
        command(self, argument)

    def _attach(self, name: str, file: str) -> None:
        medium = read_medium(name, file, self.backend)
        self.conversation.attached.append(medium)
        self.screen.notice(f"{medium.path.name} goes with the next prompt.")

    def _media(self, argument: str) -> None:
        name, _, file = argument.partition(" ")
        if not file.strip():
            raise DataError("/media: write /media NAME FILE, such as /media image photo.jpg.")
        self._attach(name, file.strip())

    def _drop(self, argument: str) -> None:
        self.conversation.attached.clear()
        self.screen.notice("No file goes with the next prompt.")

    def _choose(self, argument: str) -> None:
        if argument:
            self.workflow = check_choice(self.backend, argument)
        others = ", ".join(name for name in self.backend.choices if name != self.workflow)
        self.screen.notice(f"{self.workflow} answers." + (f" There are also: {others}." if others else ""))

    def _say_first(self, argument: str) -> None:
        self.conversation.system = argument
        self.screen.notice("The system message is set." if argument else "There is no system message.")

    def _reset(self, argument: str) -> None:
        self.conversation = Conversation(self.conversation.system)
        self.screen.notice("The conversation begins anew.")

    def _save(self, argument: str) -> None:
        path = as_path(argument).absolute()
        if path.exists() and path not in self._saved:
            raise DataError(f"{path} exists. Name another file.")
        self.conversation.save(path)
        self._saved.add(path)
        self.screen.notice(f"Saved to {path}.")

    def _load(self, argument: str) -> None:
        self.conversation = load_conversation(as_path(argument), self.backend)
        self.screen.notice(f"{len(self.conversation.turns)} turns were read.")

    def _help(self, argument: str) -> None:
        rows = [(f"/{name} {usage}".strip(), text) for name, (usage, text, _) in COMMANDS.items()]
        self.screen.table([*rows, *KEYS])

    def _leave(self, argument: str) -> None:
        raise Leave


COMMANDS: dict[str, tuple[str, str, Callable[[Chat, str], None]]] = {
    "image": ("FILE", "A picture for the next prompt.", lambda chat, file: chat._attach("image", file)),
    "audio": ("FILE", "A recording for the next prompt.", lambda chat, file: chat._attach("audio", file)),
    "media": ("NAME FILE", "A file of any modality for the next prompt.", Chat._media),
    "drop": ("", "Take back the files for the next prompt.", Chat._drop),
    "workflow": ("[NAME]", f"Choose who answers; `{AUTO}` goes by the media.", Chat._choose),
    "system": ("[TEXT]", "Set the system message, or remove it.", Chat._say_first),
    "reset": ("", "Forget the conversation.", Chat._reset),
    "save": ("FILE", "Write the conversation as JSON.", Chat._save),
    "load": ("FILE", "Read a conversation that was saved.", Chat._load),
    "help": ("", "Show this.", Chat._help),
    "quit": ("", "Leave; so does Ctrl-D.", Chat._leave),
}
"""For each command its argument, in brackets where it is optional, what it does, and how."""

KEYS = (
    ("\\", "At the end of a line: the next one belongs to it."),
    (f"{QUOTES}…{QUOTES}", "A prompt of several lines, or one that begins with /."),
    ("Ctrl-C", "Stop the answer."),
)
