"""Scoring models and reporting on runs. The built-in benchmark registers through the hook anyone may use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from adaptkit.evaluation.answers_task import AnswersTask
    from adaptkit.evaluation.text_task import TextTask
    from adaptkit.evaluation.world_task import WorldTask


class WorldTaskOptions(Options):
    """What a recipe may set for the evaluation task `world`.

    Attributes:
        num_per_kind: Held-out questions of each kind; a `limit` replaces it.
        batch_size: Questions answered at once.
        grounding_workflow: The workflow that answers with boxes, where a run has one of this name.
    """

    num_per_kind: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=1)
    grounding_workflow: str = "grounding"


class AnswersTaskOptions(Options):
    """What a recipe may set for the evaluation task `answers`.

    Attributes:
        datasets: Held-out datasets of the recipe's `data` section; the last answer of each conversation is asked for.
        workflows: Which workflow answers a dataset; the recipe's first where it does not say.
        training: For a dataset the one whose most frequent answer is the majority baseline; by default its own, which
            is the most that a constant answer can reach. That is also the baseline where `adaptkit eval` does not find
            the other dataset, or nothing usable in it.
        batch_size: Questions answered at once.
    """

    datasets: list[str] = Field(min_length=1)
    workflows: dict[str, str] = Field(default_factory=dict)
    training: dict[str, str] = Field(default_factory=dict)
    batch_size: int = Field(default=64, ge=1)


class TextTaskOptions(Options):
    """What a recipe may set for the evaluation task `text`.

    Attributes:
        num_per_kind: Questions of each kind of the built-in world, in words, which only decoders that were trained on
            it can answer; 0 compares logits alone.
        batch_size: Questions answered at once.
    """

    num_per_kind: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=1)


def build_answers_task(options: AnswersTaskOptions) -> AnswersTask:
    """Make the evaluation task `answers`."""
    from adaptkit.evaluation.answers_task import AnswersTask

    return AnswersTask(options)


def build_text_task(options: TextTaskOptions) -> TextTask:
    """Make the evaluation task `text`."""
    from adaptkit.evaluation.text_task import TextTask

    return TextTask(options)


def _datasets(options: AnswersTaskOptions) -> list[str]:
    return list(dict.fromkeys([*options.datasets, *options.training.values()]))


def _baselines(options: AnswersTaskOptions) -> list[str]:
    return [name for name in options.training.values() if name not in options.datasets]


def _world_problems(options: WorldTaskOptions, workflows: Mapping[str, Collection[str]]) -> list[str]:
    from adaptkit.evaluation.world_task import MODALITY

    asked = dict.fromkeys([next(iter(workflows)), *({options.grounding_workflow} & set(workflows))])
    return [
        f"it asks the workflow {name!r} about media of the modality {MODALITY!r}, and that takes "
        f"{', '.join(workflows[name]) or 'none'}"
        for name in asked
        if MODALITY not in workflows[name]
    ]


def _answers_problems(options: AnswersTaskOptions, workflows: Mapping[str, Collection[str]]) -> list[str]:
    untrained = dict.fromkeys(name for name in options.workflows.values() if name not in workflows)
    return [f"no stage trains the workflow {name!r} that is to answer" for name in untrained]


def build_world_task(options: WorldTaskOptions) -> WorldTask:
    """Make the evaluation task `world`."""
    from adaptkit.evaluation.world_task import WorldTask

    return WorldTask(options)


@hookimpl
def register_evaluation_tasks(register: Register) -> None:
    """Offer `world`, `answers` and `text`."""
    register(
        name="world",
        build=build_world_task,
        options=WorldTaskOptions,
        description="Held-out questions, boxes and text of the built-in world; proof that text is unchanged.",
        problems=_world_problems,
    )
    register(
        name="answers",
        build=build_answers_task,
        options=AnswersTaskOptions,
        description="Exact answers, or boxes, to the conversations of held-out datasets, beside blind and majority.",
        datasets=_datasets,
        baselines=_baselines,
        problems=_answers_problems,
    )
    register(
        name="text",
        build=build_text_task,
        options=TextTaskOptions,
        description="Proof that text is unchanged: logits of the text workflow against a process without adaptkit.",
    )
