"""Prompts on their way to an outcome: what an engine knows of them."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from torch import Tensor

from adaptkit.errors import RunError
from adaptkit.inference.answer import FinishReason

T = TypeVar("T")
_numbers = itertools.count()


@dataclass
class Prompt:
    """Token ids of a prompt, and its media.

    Attributes:
        input_ids: A medium is a run of its modality's placeholder id.
        media: `(modality, encoder input, content hash)` in reading order.
        spans: `(start, stop)` of each medium in `input_ids`, the tokens around it included.
        num_scored: Positions at the end whose logits are needed.
        is_patient: Whether it waits for a prompt that begins alike, rather than run beside it, and reuses what that
            one computes.
    """

    input_ids: list[int]
    media: list[tuple[str, Tensor, str]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    num_scored: int = 1
    is_patient: bool = False

    @property
    def media_end(self) -> int:
        """Where the text after the last medium begins."""
        return max((stop for _, stop in self.spans), default=0)

    def media_from(self, start: int) -> dict[str, list[Tensor]]:
        """Encoder inputs of the media that begin at a position or later, by modality, in reading order."""
        found: dict[str, list[Tensor]] = {}
        for (modality, inputs, _), (begin, _) in zip(self.media, self.spans, strict=True):
            if begin >= start:
                found.setdefault(modality, []).append(inputs)
        return found


class Pending(ABC, Generic[T]):
    """A prompt on its way to an outcome; wait for the `result`.

    Attributes:
        id: A number of its own in this process.
        workflow: Which workflow answers; `text` is the base.
        prompt: What it is asked.
        token_ids: What it has answered so far.
        cached_tokens: Positions of the prompt that an earlier request had computed.
    """

    def __init__(self, workflow: str, prompt: Prompt) -> None:
        self.id = next(_numbers)
        self.workflow = workflow
        self.prompt = prompt
        self.token_ids: list[int] = []
        self.cached_tokens = 0
        self._finished = threading.Event()
        self._outcome: T | BaseException | None = None
        self._cancelled = False

    @property
    def num_prompt_tokens(self) -> int:
        """Positions of the prompt, those of media included."""
        return len(self.prompt.input_ids)

    @property
    def is_finished(self) -> bool:
        """Whether there is an outcome, or an error."""
        return self._finished.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the outcome any longer."""
        return self._cancelled

    def cancel(self) -> None:
        """Give up; the request's place in the batch is free at the next step."""
        self._cancelled = True

    def result(self, timeout: float | None = None) -> T:
        """Wait for the outcome, at most `timeout` seconds.

        Raises:
            TimeoutError: There is none yet.
            Exception: What went wrong with this request.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"request {self.id} has no answer after {timeout} s.")
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return cast(T, self._outcome)

    # -- the engine's side ---------------------------------------------------------------------------------------

    @abstractmethod
    def take_logits(self, logits: Tensor, likeliest: int) -> None:
        """Go on with logits of the prompt's last positions, `(positions, vocab)`; the request may be finished then.

        Args:
            likeliest: The most likely token after the last one.
        """

    @abstractmethod
    def finish(self, reason: FinishReason) -> None:
        """End it before it ends by itself."""

    def fail(self, error: BaseException) -> None:
        """End with an error, which is raised where the outcome is awaited."""
        if not self.is_finished:
            self._end(error)

    def _end(self, outcome: T | BaseException) -> None:
        self._outcome = outcome
        self._finished.set()


def stopped() -> RunError:
    """What requests end with that a closed session can no longer answer."""
    return RunError("the session was closed before this request was answered.")


def take_logits(requests: Sequence[Pending[Any]], logits: Tensor) -> None:
    """Go on with each request that is not finished, from `(requests, positions, vocab)` logits of its last positions.

    Where that fails, so does the request: it has its options to itself.
    """
    likeliest = logits[:, -1].argmax(-1).tolist()
    for row, request in enumerate(requests):
        if request.is_finished:
            continue
        try:
            request.take_logits(logits[row], likeliest[row])
        except Exception as error:
            request.fail(error)
