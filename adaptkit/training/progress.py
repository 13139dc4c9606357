"""How far a stage is, for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from adaptkit.reporting import TrainingProgress
from adaptkit.training.throughput import SpeedMeter, Throughput


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports the progress of a stage at its start, with the first loss, after each step, and at its end.

    Args:
        show: Called in the main process.
        steps_after: Steps of the stages after this one, for the time left in all.
    """

    def __init__(
        self, show: Callable[[TrainingProgress], None], stage: str, throughput: Throughput, *, steps_after: int = 0
    ) -> None:
        self._show = show
        self._stage = stage
        self._meter = SpeedMeter(throughput)
        self._steps_after = steps_after
        self._loss: float | None = None
        self._validation = ""
        self._started = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = (time.monotonic(), state.global_step)
        self._meter.restart()
        self._report(args, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" not in logs:
            self._validation = f"validation {logs['validation/loss']:.3f}"
            self._meter.skip(logs["validation/seconds"])
            return
        self._loss = float(logs["loss"])
        if state.global_step == 1:
            self._report(args, state, is_first_loss=True)

    def validating(self, done: int, total: int, args: Any, state: Any) -> None:
        """Report how many batches of a validation are done."""
        self._validation = f"validating {done}/{total}"
        self._report(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(args, state, is_end=True)

    def _report(self, args: Any, state: Any, *, is_first_loss: bool = False, is_end: bool = False) -> None:
        if not state.is_world_process_zero:
            return
        began, first = self._started
        done, left, after = state.global_step - first, state.max_steps - state.global_step, self._steps_after
        pace = (time.monotonic() - began) / done if done and left else None
        self._show(
            TrainingProgress(
                stage=self._stage,
                step=state.global_step,
                num_steps=state.max_steps,
                loss=self._loss,
                validation=self._validation,
                is_first_loss=is_first_loss,
                is_end=is_end,
                seconds_left=None if pace is None else left * pace,
                seconds_left_in_all=None if pace is None or not after else (left + after) * pace,
                speed=lambda: self._meter.speed().as_texts(args.device),
            )
        )
