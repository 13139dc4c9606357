"""`adaptkit chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from adaptkit.cli.answering import answer_options, backend_options, open_backend
from adaptkit.cli.chat_commands import Chat, Leave
from adaptkit.cli.chat_input import completions, read_entry, use_readline
from adaptkit.cli.conversation import Conversation
from adaptkit.cli.group import explain
from adaptkit.cli.output import keep_stdout
from adaptkit.cli.terminal import Console, echo, echo_message, echo_part, styled
from adaptkit.errors import inert
from adaptkit.serving.backends import AUTO, Reply


@click.command()
@backend_options
@click.option("--system", default="", help="A system message.")
@answer_options
@click.pass_context
def chat(
    context: click.Context,
    /,
    checkpoints: tuple[Path, ...],
    url: str | None,
    api_key: str | None,
    workflow: str | None,
    system: str,
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Talk to workflows of CHECKPOINT: a run directory, or one or more workflows' folders or hub ids over one base.

    A prompt without media goes to the text workflow, which is the base; media go to a workflow that takes them. Lines
    that begin with / are commands, and /help lists them.

    Without a terminal, prompts and commands are read from standard input, one a line, and answers are printed one a
    line; the first error ends it.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not is_terminal:
        keep_stdout(context)  # for the answers
    screen = TerminalScreen() if is_terminal else PlainScreen()
    opening = open_backend(checkpoints, url, api_key, workflow, trust_remote_code=trust_remote_code)
    with ExitStack() as stack:
        with screen.waiting("connecting" if url else "loading"):
            backend, chosen = stack.enter_context(opening)
        talk = Chat(backend, screen, chosen, options, Conversation(system))
        (run_terminal if is_terminal else run_lines)(talk)


def run_terminal(chat: Chat, read_line: Callable[[str], str] = input) -> None:
    """Read and answer until the user leaves; errors are shown, and the chat goes on."""
    use_readline(lambda line: completions(line, chat.arguments()))
    chat.screen.notice(f"Workflows: {', '.join(chat.backend.choices)}. /help lists the commands.")
    while True:
        try:
            chat.take(read_entry(lambda continues: read_line("… " if continues else _prompt(chat))))
        except KeyboardInterrupt:
            echo()
            chat.screen.notice("/quit or Ctrl-D leaves.")
        except (EOFError, Leave):
            return
        except Exception as error:
            message, _ = explain(error)
            if message is None:
                raise
            echo_message("Error: ", message)


def _prompt(chat: Chat) -> str:
    files = "".join(f"[{medium.path.name}] " for medium in chat.conversation.attached)
    return inert(f"{files}{'' if chat.workflow == AUTO else chat.workflow}> ")


def run_lines(chat: Chat) -> None:
    """Read and answer what standard input holds.

    Raises:
        AdaptkitError: Something could not be answered or done; nothing after it is read.
    """

    def read_line(continues: bool) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n").removesuffix("\r")

    try:
        while True:
            chat.take(read_entry(read_line))
    except (EOFError, Leave):
        return


class TerminalScreen:
    """Answers as they come, each after the name of who gives it, and notices between them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def answer(self, reply: Reply) -> tuple[str, bool]:
        """Show an answer until it ends or Ctrl-C stops it; gives its text, and whether it was stopped."""
        pieces: list[str] = []
        was_stopped = False
        try:
            with self.waiting("…"):
                parts = filter(None, reply)
                pieces += [next(parts, "")]
            self._console.print(styled(f"{reply.workflow}: ", "bold cyan"), end="")
            echo_part(pieces[0])
            for part in parts:
                pieces.append(part)
                echo_part(part)
        except KeyboardInterrupt:
            was_stopped = True
        finally:
            reply.cancel()
            self._console.print()
        text = "".join(pieces)
        self.notice("(stopped)" if was_stopped else _remark(reply, text))
        return text, was_stopped

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """Show that something is going on."""
        return self._console.status(text)

    def notice(self, text: str) -> None:
        """Show a line that is not an answer; nothing where it is empty."""
        if text:
            self._console.print(styled(text, "dim"))

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Show rows of two cells."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        for first, second in rows:
            table.add_row(styled(first, "bold"), second)
        self._console.print(table)


class PlainScreen:
    """Answers alone on standard output, one after the other; all else goes to standard error."""

    def answer(self, reply: Reply) -> tuple[str, bool]:
        """Print an answer as it comes."""
        pieces: list[str] = []
        try:
            for piece in reply:
                pieces.append(piece)
                echo_part(piece)
        finally:
            reply.cancel()
        echo_part("\n")
        text = "".join(pieces)
        self.notice(_remark(reply, text))
        return text, False

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """Print nothing."""
        return nullcontext()

    def notice(self, text: str) -> None:
        """Print a line that is not an answer; nothing where it is empty."""
        if text:
            echo(text, err=True)

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print rows of two cells."""
        for first, second in rows:
            echo(f"{first:18} {second}", err=True)


def _remark(reply: Reply, text: str) -> str:
    if reply.finish_reason == "length":
        return "(cut off: --max-new-tokens sets the most tokens of an answer)"
    return "" if text else "(an empty answer)"
