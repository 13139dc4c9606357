"""A stage's progress, for a person who watches or reads the log later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn
from transformers import TrainerCallback

from adaptkit.terminal import Console, TextColumn
from adaptkit.training.throughput import SpeedMeter, Throughput

_REDRAW_S = 0.5  # counts that lie on a device are read each time, for which it stops

_BAR_WIDTH = 34  # the bar, the time left of the stage, and blanks between columns


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows steps, loss, speed, utilisation and memory where a device tells them, and time left.

    On a terminal that is a bar; elsewhere one line after the first step, one every `interval_s`, and one at the end.
    The loss of the first step stays on the screen either way: it is what a stage begins from.

    Args:
        console: Where to write.
        stage: What to call the bar.
        throughput: What was computed.
        steps_after: Steps of the stages after this one, for the time left in all.
        interval_s: Seconds between lines where the output is no terminal.
    """

    def __init__(
        self, console: Console, stage: str, throughput: Throughput, *, steps_after: int = 0, interval_s: float = 15.0
    ) -> None:
        self._console = console
        self._stage = stage
        self._meter = SpeedMeter(throughput)
        self._steps_after = steps_after
        self._interval_s = _REDRAW_S if console.is_terminal else interval_s
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss = "-"
        self._device = torch.device("cpu")
        self._started = self._shown = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._shown = (time.monotonic(), state.global_step)
        self._meter.restart()
        if self._console.is_terminal and state.is_world_process_zero:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"), TimeRemainingColumn(), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._stage, total=state.max_steps, completed=state.global_step, text="")
            self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        self._loss = f"{logs['loss']:.3f}"
        if state.global_step == 1 and state.is_world_process_zero:
            line = f"{self._stage}  1/{state.max_steps}  loss {self._loss}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._shown[0] >= self._interval_s:
            self._device = args.device
            self._show(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None or state.global_step != self._shown[1]:
            self._show(state)
        self.close()

    def _show(self, state: Any) -> None:
        if not state.is_world_process_zero:
            return
        now, step = time.monotonic(), state.global_step
        self._shown = (now, step)
        rate = (step - self._started[1]) / max(now - self._started[0], 1e-9)
        left, after = state.max_steps - step, self._steps_after
        in_all = [f"{_clock((left + after) / rate)} in all"] if rate > 0 and after and left else []
        loss, speed = f"loss {self._loss}", self._meter.speed().as_texts(self._device)
        if self._bar is not None:
            room = self._console.width - len(f"{self._stage} {step}/{state.max_steps}") - _BAR_WIDTH
            self._bar.update(self._task, completed=step, text=_fitting([loss, speed[0], *in_all, *speed[1:]], room))
            return
        times = [", ".join([f"{_clock(left / rate)} left", *in_all])] if rate > 0 and left else []
        line = "  ".join([self._stage, f"{step}/{state.max_steps}", loss, *speed, *times])
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


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
