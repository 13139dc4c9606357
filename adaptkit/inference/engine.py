"""Requests that join and leave running batches between decoding steps."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from adaptkit.errors import AdaptkitError
from adaptkit.inference.pending import Pending, stopped

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads before the interpreter does, which must not happen within a pass."""
    for engine in list(_engines):
        engine.close()


def _forget_all() -> None:
    for engine in list(_engines):
        engine.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

LINGER_S = 2.0
"""How long the thread waits for further requests before it ends; the next request starts another."""


class QueueFullError(AdaptkitError):
    """As many requests wait as may.

    Attributes:
        retry_after_s: When it is worth trying again, in seconds.
    """

    def __init__(self, num_waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{num_waiting} requests are waiting, as many as may; try again in {retry_after_s:.0f} s.")
        self.retry_after_s = retry_after_s


class BatchGroup(ABC):
    """Workflows whose requests run in one batch.

    Attributes:
        workflows: Names of the workflows.
        reason: Why others are not among them; empty where all are.
    """

    workflows: tuple[str, ...]
    reason: str = ""

    @property
    @abstractmethod
    def running(self) -> Sequence[Pending[Any]]:
        """Requests that have a place in the batch."""

    @abstractmethod
    def admit(self, requests: list[Pending[Any]]) -> None:
        """Run the prompts of requests and give them places."""

    @abstractmethod
    def step(self) -> None:
        """One further token for each running request."""

    @abstractmethod
    def reset(self) -> None:
        """Drop every place."""

    def status(self) -> dict[str, Any]:
        """What a person wants to know of it."""
        return {"workflows": list(self.workflows), "running": len(self.running), "reason": self.reason}


class Engine:
    """Runs batch groups in a thread of its own while there are requests.

    Args:
        groups: Which together have all workflows.
        max_batch_size: Most requests with a place in a group's batch.
        max_waiting: Most requests that wait for a place, or None for any number.
    """

    def __init__(self, groups: Sequence[BatchGroup], *, max_batch_size: int, max_waiting: int | None) -> None:
        self.groups = list(groups)
        self.max_batch_size = max_batch_size
        self.max_waiting = max_waiting
        self.counts = {"requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0, "steps": 0}
        self._group_of = {name: group for group in groups for name in group.workflows}
        self._seconds_per_request = 1.0
        self._closed = False
        self.forget()
        _engines.add(self)

    def forget(self) -> None:
        """Begin anew in a forked process: the thread, and the requests that it answers, are the parent's."""
        self._waiting: deque[Pending[Any]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        for group in self.groups:
            group.reset()

    def submit(self, *requests: Pending[Any]) -> None:
        """Queue requests; those that are queued together are admitted together where there are places.

        Raises:
            QueueFullError: As many wait as may.
        """
        with self._changed:
            if self._closed:
                raise stopped()
            if self.max_waiting is not None and len(self._waiting) + len(requests) > self.max_waiting:
                wait_s = max(1.0, len(self._waiting) * self._seconds_per_request / self.max_batch_size)
                raise QueueFullError(len(self._waiting), wait_s)
            self._waiting.extend(requests)
            self.counts["requests"] += len(requests)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="adaptkit-engine", daemon=True)
                self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Take no further requests, and end those that are there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    @property
    def num_waiting(self) -> int:
        """Requests without a place yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests with a place in a batch."""
        return sum(len(group.running) for group in self.groups)

    def _run(self) -> None:
        with torch.no_grad():
            while self._wait_for_work():
                self.advance(self.groups)
        self._end_all()

    def _wait_for_work(self) -> bool:
        """Whether there is any; the thread ends where there is none for a while."""
        with self._changed:
            deadline = time.monotonic() + LINGER_S
            while not self._closed and not self._waiting and not self.num_running:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    self._thread = None
                    return False
            return not self._closed

    def _end_all(self) -> None:
        if self._closed:
            left = [*self._waiting, *(request for group in self.groups for request in group.running)]
            self._waiting.clear()
            for group in self.groups:
                group.reset()
            for request in left:
                request.fail(stopped())

    def advance_others(self, group: BatchGroup) -> None:
        """As `advance`, of the other groups, between two steps of a group's batch.

        Raises:
            RunError: The engine was closed.
        """
        if self._closed:
            raise stopped()
        self.advance([other for other in self.groups if other is not group])

    def advance(self, groups: Sequence[BatchGroup]) -> None:
        """Give places to waiting requests, and every running request of these groups a further token."""
        self._end_cancelled()
        for group in groups:
            admitted = self._next_of(group)
            if admitted:
                started = time.monotonic()
                self._guarded(group, admitted, functools.partial(group.admit, admitted))
                self._note(admitted, time.monotonic() - started)
        for group in groups:
            if group.running:
                self.counts["steps"] += 1
                self._guarded(group, list(group.running), group.step)

    def _end_cancelled(self) -> None:
        """Whatever group they wait for: that one may be busy for long."""
        with self._changed:
            cancelled = [request for request in self._waiting if request.is_cancelled]
            for request in cancelled:
                self._waiting.remove(request)
        for request in cancelled:
            request.finish("cancelled")

    def _next_of(self, group: BatchGroup) -> list[Pending[Any]]:
        """Waiting requests for which the group has places, first come first served."""
        free = self.max_batch_size - len(group.running)
        chosen: list[Pending[Any]] = []
        with self._changed:
            for request in list(self._waiting):
                if self._group_of[request.workflow] is group and len(chosen) < free:
                    self._waiting.remove(request)
                    chosen.append(request)
        return chosen

    def _guarded(self, group: BatchGroup, concerned: list[Pending[Any]], action: Callable[[], None]) -> None:
        """Run an action of a group; where it fails, so do the requests that it concerns, and nothing else."""
        try:
            action()
        except Exception as error:
            affected = [*concerned, *group.running]
            group.reset()
            for request in affected:
                request.fail(error)
        for request in concerned:
            if request.is_finished:
                self.counts["completion_tokens"] += len(request.token_ids)

    def _note(self, admitted: list[Pending[Any]], seconds: float) -> None:
        self.counts["prompt_tokens"] += sum(request.num_prompt_tokens for request in admitted)
        self.counts["cached_tokens"] += sum(request.cached_tokens for request in admitted)
        self._seconds_per_request += 0.2 * (seconds / len(admitted) - self._seconds_per_request)
