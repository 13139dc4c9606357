"""Scoring models and reporting on runs. The built-in benchmarks register through the hook anyone may use."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from adaptkit.evaluation.options import AnswersTaskOptions, TextTaskOptions, WorldTaskOptions
from adaptkit.hookspecs import EvaluationTaskComponent, hookimpl


def _datasets(options: AnswersTaskOptions) -> list[str]:
    return list(dict.fromkeys([*options.datasets, *options.training.values()]))


def _baselines(options: AnswersTaskOptions) -> list[str]:
    return [name for name in options.training.values() if name not in options.datasets]


def _answers_problems(options: AnswersTaskOptions, workflows: Mapping[str, Collection[str]]) -> list[str]:
    untrained = dict.fromkeys(name for name in options.workflows.values() if name not in workflows)
    return [f"no stage trains the workflow {name!r} that is to answer" for name in untrained]


@hookimpl
def register_evaluation_tasks(register: type[EvaluationTaskComponent]) -> None:
    """Offer `world`, `answers` and `text`."""
    register(
        name="world",
        build="adaptkit.evaluation.world_task:WorldTask",
        options=WorldTaskOptions,
        description="Held-out questions, boxes and text of the built-in world; proof that text is unchanged.",
        problems="adaptkit.evaluation.world_task:problems",
    )
    register(
        name="answers",
        build="adaptkit.evaluation.answers_task:AnswersTask",
        options=AnswersTaskOptions,
        description="Exact answers, or boxes, to the conversations of held-out datasets, beside blind and majority.",
        datasets=_datasets,
        baselines=_baselines,
        problems=_answers_problems,
    )
    register(
        name="text",
        build="adaptkit.evaluation.text_task:TextTask",
        options=TextTaskOptions,
        description="Proof that text is unchanged: logits of the text workflow against a process without adaptkit.",
    )
