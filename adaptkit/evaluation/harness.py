"""What the benchmarks that adaptkit ships share: asking, progress, and what a score depends on besides the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adaptkit.files.versions import versions
from adaptkit.interfaces import EvaluationTask

Progress = Callable[[int, int, str], None]
"""Called with questions answered, questions in all, and what is being asked."""


def unwatched(done: int, total: int, what: str) -> None:
    """Ignore the progress."""


class QuestionCounter:
    """Adds up the questions answered."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def on(self, what: str) -> Callable[[int], None]:
        """A function that counts further questions about something."""

        def advance(num: int) -> None:
            self._done += num
            self._progress(self._done, self._total, what)

        return advance


class WorkflowsTask(EvaluationTask):
    """A benchmark that scores all workflows of a run, or one."""

    def evaluate(self, model: Any, processor: Any, **settings: Any) -> dict[str, Any]:
        """Score one workflow; see `evaluate_workflows`."""
        return self.evaluate_workflows({"": (model, processor)}, **settings).results


def describe_harness(model: Any, **settings: Any) -> dict[str, Any]:
    """Rules, precision, device and versions behind the scores of a model."""
    return {
        "name": f"adaptkit {versions()['adaptkit']}",
        **settings,
        "decoding": "greedy, batched with left padding",
        "questions": "exact match after lower-casing and normalizing whitespace",
        "grounding": "a box of IoU 0.5 or more, parsed as a literal (IAA's official RefCOCO rule)",
        "majority": "most frequent answer of each kind in the training split",
        "blind": "the same workflow and question without the medium",
        "dtype": str(model.base.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": versions(),
    }
