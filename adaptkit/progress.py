"""A progress bar for work whose size shows as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TimeRemainingColumn

from adaptkit.terminal import Console, TextColumn


@contextmanager
def progress_bar(console: Console, what: str = "") -> Iterator[Callable[..., None]]:
    """A progress bar as a function `(done, total)`, or `(done, total, what)`; silent where nobody watches."""
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
        disable=not console.is_terminal,
        # Processes that are forked while it is shown must not print through its lock
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int, what: str = what) -> None:
            progress.update(task, completed=done, total=total, description=what)

        yield advance
