"""Scoring models and reporting on runs. The built-in benchmark registers through the hook anyone may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
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


def build_world_task(options: WorldTaskOptions) -> WorldTask:
    """Make the evaluation task `world`."""
    from adaptkit.evaluation.world_task import WorldTask

    return WorldTask(options)


@hookimpl
def register_evaluation_tasks(register: Register) -> None:
    """Offer `world`."""
    register(
        name="world",
        build=build_world_task,
        options=WorldTaskOptions,
        description="Held-out questions, boxes and text of the built-in world; proof that text is unchanged.",
    )
