"""What reaches a terminal. Nothing else prints.

Paths, names, data, generated text and other people's errors are only shown: they are not markup, and neither escape
codes nor line breaks in them get through. A plain string is one line; style comes from `styled` or the argument
`style`, never from what a text says.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click
import rich.console
from rich.progress import ProgressColumn, Task
from rich.protocol import is_renderable
from rich.segment import Segment
from rich.status import Status
from rich.table import Column
from rich.text import Text

from adaptkit.errors import inert, inert_text, without_secrets

_reserved: list[TextIO] = []


class Console(rich.console.Console):
    """A console that shows strings as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (value if is_renderable(value) else str(value) for value in objects)
        super().print(*shown, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(inert(without_secrets(text)), **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(inert_text(segment.text), segment.style)

    def status(self, status: rich.console.RenderableType, **options: Any) -> Status:
        return super().status(styled(status) if isinstance(status, str) else status, **options)


def styled(text: object, style: str = "", **options: Any) -> Text:
    """One line in a style, for whatever takes more than a string."""
    return Text(inert(text), style=style, **options)


class TextColumn(ProgressColumn):
    """The part of a progress bar that is text: `{task.description}`."""

    def __init__(self, text_format: str) -> None:
        self._text_format = text_format
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return styled(self._text_format.format(task=task))


def echo(line: object = "", *, err: bool = False) -> None:
    """Print one line."""
    _write(inert(line) + "\n", err=err)


def echo_message(opening: str, message: str) -> None:
    """Print an error, of one line or several; only its first line begins with `opening`."""
    first, *others = inert_text(message).split("\n")
    _write("".join([f"{inert(opening)}{first}\n", *(f"  {line}\n" for line in others)]), err=True)


def echo_text(text: str) -> None:
    """Print text that keeps its own lines, such as an answer."""
    _write(inert_text(text) + "\n")


def echo_part(text: str) -> None:
    """Print a part of a text that keeps its own lines, such as a piece of an answer; more of it follows."""
    _write(inert_text(text))


def echo_json(values: Any) -> None:
    """Print values as JSON, in which control characters are escaped as JSON does it."""
    stream = _reserved[-1] if _reserved else sys.stdout
    text = json.dumps(values, indent=2, ensure_ascii="utf" not in (getattr(stream, "encoding", None) or "utf").lower())
    _write(inert_text(text, lambda character: json.dumps(character)[1:-1]) + "\n")


def _write(text: str, *, err: bool = False) -> None:
    stream = sys.stderr if err else _reserved[-1] if _reserved else sys.stdout
    click.echo(text, nl=False, err=err, file=stream)  # named, since click would write UTF-8 to a stream of ASCII


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output for what the functions here print; what else is written to it goes to standard error.

    Plugins and libraries print when they are imported, and so do the processes that they start.
    """
    if _reserved or sys.stdout is None:
        yield
        return
    shown = sys.stdout
    with _second_stdout(shown) as stream:
        _reserved.append(stream)
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = shown
            _reserved.clear()


@contextmanager
def _second_stdout(shown: TextIO) -> Iterator[TextIO]:
    """Another stream to where standard output goes, while the descriptor itself leads to standard error."""
    try:
        is_descriptor = shown.fileno() == 1
        kept = os.dup(1) if is_descriptor else -1
    except (OSError, ValueError):  # no file, or closed
        is_descriptor = False
    if not is_descriptor:
        yield shown
        return
    shown.flush()
    stream = os.fdopen(os.dup(kept), "w", encoding=shown.encoding, errors=shown.errors)
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield stream
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        with suppress(OSError):  # whoever read it has gone; the write has said so
            stream.close()
