"""Progress of work whose size shows as it goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TimeRemainingColumn

from adaptkit.terminal import Console, TextColumn


@contextmanager
def progress_bar(console: Console, what: str = "", *, interval_s: float = 15.0) -> Iterator[Callable[..., None]]:
    """A progress bar as a function `(done, total)`, or `(done, total, what)`.

    Where the output is no terminal, a line is printed when the work begins, every `interval_s`, and at its end.
    """
    if not console.is_terminal:
        lines = _Lines(console, what, interval_s)
        yield lines.advance
        lines.finish()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        # Processes that are forked while it is shown must not print through its lock
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int, what: str = what) -> None:
            progress.update(task, completed=done, total=total, description=what)

        yield advance


class _Lines:
    """Prints how far the work is, but never the same line twice."""

    def __init__(self, console: Console, what: str, interval_s: float) -> None:
        self._console, self._what, self._interval_s = console, what, interval_s
        self._now = self._printed = ""
        self._printed_at = float("-inf")

    def advance(self, done: int, total: int, what: str | None = None) -> None:
        part = f": {what}" if what else ""
        self._now = f"{self._what}{part}  {done:,}/{total:,}"
        if time.monotonic() - self._printed_at >= self._interval_s:
            self.finish()

    def finish(self) -> None:
        if self._now != self._printed:
            self._console.print(self._now, highlight=False, soft_wrap=True)
            self._printed, self._printed_at = self._now, time.monotonic()
