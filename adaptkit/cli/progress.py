"""Progress of work whose size shows as it goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TimeRemainingColumn,
)

from adaptkit.cli.terminal import Console, TextColumn
from adaptkit.reporting import TrainingProgress

_REDRAW_S = 0.5  # counts that lie on a device are read each time, for which it stops

_BAR_WIDTH = 34  # the bar, the time left of the stage, and spaces between columns


@contextmanager
def progress_bar(console: Console, what: str = "", *, interval_s: float = 15.0) -> Iterator[Callable[..., None]]:
    """A progress bar as a function `(done, total)`, or `(done, total, what)`.

    Where the output is not a terminal, a line is printed when the work begins, every `interval_s`, and at its end.
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
        described = ": ".join(filter(None, [self._what, what]))
        self._now = f"{described}  {done:,}/{total:,}"
        if time.monotonic() - self._printed_at >= self._interval_s:
            self.finish()

    def finish(self) -> None:
        if self._now != self._printed:
            self._console.print(self._now, highlight=False, soft_wrap=True)
            self._printed, self._printed_at = self._now, time.monotonic()


@contextmanager
def training_progress(console: Console, *, interval_s: float = 15.0) -> Iterator[Callable[[TrainingProgress], None]]:
    """The progress of a stage: steps, loss, speed, memory where a device tells it, and time left.

    On a terminal that is a bar; elsewhere one line after the first step, one every `interval_s`, and one at the end.
    The loss of the first step stays on the screen either way: it is what a stage begins from.
    """
    if console.is_terminal:
        bar = TrainingBar(console)
        try:
            yield bar.show
        finally:
            bar.progress.stop()
    else:
        yield _TrainingLines(console, interval_s).show


class TrainingBar:
    """A bar beside which as much is said as there is room for."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = 0.0
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"), TimeRemainingColumn(), console=console,
        )  # fmt: skip

    def show(self, now: TrainingProgress) -> None:
        """Draw the bar anew, unless that was done just now."""
        if not self.progress.tasks:
            self.progress.add_task(now.stage, total=now.num_steps, completed=now.step, text="")
            self.progress.start()
            self._shown_at = time.monotonic()
        elif now.is_first_loss:
            _print_first_loss(self._console, now)
        elif now.is_end or time.monotonic() - self._shown_at >= _REDRAW_S:
            self._shown_at = time.monotonic()
            speed = now.speed()
            texts = [_loss(now), *_validation(now), speed[0], *_in_all(now), *speed[1:]]
            room = self._console.width - len(f"{now.stage} {now.step}/{now.num_steps}") - _BAR_WIDTH
            task = self.progress.tasks[0].id
            self.progress.update(task, completed=now.step, text=_fitting(texts, room))


class _TrainingLines:
    def __init__(self, console: Console, interval_s: float) -> None:
        self._console, self._interval_s = console, interval_s
        self._shown: tuple[float, int] | None = None

    def show(self, now: TrainingProgress) -> None:
        if self._shown is None:
            self._shown = (time.monotonic(), now.step)
        elif now.is_first_loss:
            _print_first_loss(self._console, now)
        elif now.step != self._shown[1] and (now.is_end or time.monotonic() - self._shown[0] >= self._interval_s):
            self._shown = (time.monotonic(), now.step)
            left = [] if now.seconds_left is None else [f"{_clock(now.seconds_left)} left"]
            times = ", ".join([*left, *_in_all(now)])
            steps = f"{now.step}/{now.num_steps}"
            line = "  ".join(
                [now.stage, steps, _loss(now), *_validation(now), *now.speed(), *([times] if times else [])]
            )
            self._console.print(line, highlight=False, soft_wrap=True)


def _print_first_loss(console: Console, now: TrainingProgress) -> None:
    console.print(f"{now.stage}  1/{now.num_steps}  {_loss(now)}", highlight=False, soft_wrap=True)


def _loss(now: TrainingProgress) -> str:
    return "loss -" if now.loss is None else f"loss {now.loss:.3f}"


def _validation(now: TrainingProgress) -> list[str]:
    return [now.validation] if now.validation else []


def _in_all(now: TrainingProgress) -> list[str]:
    return [] if now.seconds_left_in_all is None else [f"{_clock(now.seconds_left_in_all)} in all"]


def _fitting(texts: Sequence[str], room: int) -> str:
    """As many of the texts, from the first, as fit into so many columns."""
    shown = ""
    for text in texts:
        longer = f"{shown}  {text}" if shown else text
        if len(longer) > room:
            break
        shown = longer
    return shown


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
