"""The evaluation task `text`: is the text workflow still the base, bit for bit?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.harness import Progress, QuestionCounter, WorkflowsTask, describe_harness, unwatched
from adaptkit.evaluation.options import TextTaskOptions
from adaptkit.evaluation.questions import Question
from adaptkit.evaluation.scores import TextEvaluation
from adaptkit.evaluation.world_task import text_questions
from adaptkit.interfaces import Evaluation


class TextTask(WorkflowsTask):
    """Compares the text workflow with its base in a process that never imports adaptkit."""

    def __init__(self, options: TextTaskOptions) -> None:
        self.options = options

    def evaluate_workflows(
        self,
        workflows: Mapping[str, tuple[Any, Any]],
        *,
        limit: int | None = None,
        seed: int = 0,
        data: Path | None = None,
        progress: Progress = unwatched,
    ) -> Evaluation:
        """Score the base that a run's workflows share, and the first workflow's adapted decoder on text.

        Args:
            limit: Questions of each kind, instead of the option's number.

        Raises:
            DataError: `data` is given.
        """
        if data is not None:
            raise DataError("the task 'text' reads no data folder: remove it.")
        model, processor = next(iter(workflows.values()))
        num = self.options.num_per_kind and (limit or self.options.num_per_kind)
        questions: list[Question] = text_questions(seed, num) if num else []
        with TextEvaluation(model, processor, questions, batch_size=self.options.batch_size) as text:
            evaluation = text.finish(QuestionCounter(progress, 2 * len(questions)).on("text"))
        evaluation.results["text"]["harness"] = describe_harness(model, task="text", seed=seed, num_per_kind=num)
        return evaluation
