"""SIGTERM while a stage trains: finish the step, save, and stop, as machines that may be taken away ask for."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from adaptkit.processes.group import any_process

PATIENCE_S = 5.0
"""A launcher may pass on a signal that reached this process by itself: what comes so soon after is the same one."""


class StopRequest:
    """Notes a SIGTERM while it is entered; one that comes `PATIENCE_S` or more after the first ends the process."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._pid = os.getpid()
        self._before: Any = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self._asked_at is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # signals are handled nowhere else
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self._asked_at is not None and now - self._asked_at >= PATIENCE_S
        if again or os.getpid() != self._pid:  # a process that was forked from this one has nothing to save
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._asked_at is None:
            self._asked_at = now


def leave_signals_alone(worker: int) -> None:
    """Let a data worker live on when a signal goes to all processes: its parent ends it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ends training, with a checkpoint, after the step in which any process was asked to stop."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if any_process(self._request.asked):
            control.should_save = True
            control.should_training_stop = True
