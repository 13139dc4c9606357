"""How the batches of a recipe are split over processes, and split again when a run resumes with another number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.errors import RecipeError, join_lines
from adaptkit.recipe.schema import Recipe
from adaptkit.stage import StageConfig


def for_processes(recipe: Recipe, num_processes: int, earlier: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe as so many processes run it.

    Args:
        earlier: The resolved recipe of the run that is resumed. Where it ran in another number of processes,
            `gradient_accumulation_steps` are changed so that an optimiser step is over as many samples as before.

    Raises:
        RecipeError: The recipe asks for another number of processes, or the batch cannot be kept.
    """
    asked = recipe.accelerator.num_processes
    if asked is not None and asked != num_processes:
        raise RecipeError(
            f"accelerator.num_processes is {asked}, and this run has {num_processes}. `adaptkit train` starts them "
            "itself; where torchrun or accelerate does, give both the same number or take accelerator.num_processes "
            "out of the recipe (accelerator.num_processes=null)."
        )
    recorded = num_processes if num_processes > 1 else None
    accelerator = recipe.accelerator.model_copy(update={"num_processes": recorded})
    stages = recipe.stages
    if earlier is not None:
        before = int((earlier.get("accelerator") or {}).get("num_processes") or 1)
        if before != num_processes:
            by_name = {stage["name"]: stage for stage in earlier["stages"]}
            stages = [_resplit(s, by_name[s.name], before, num_processes) if s.name in by_name else s for s in stages]
    return recipe.model_copy(update={"accelerator": accelerator, "stages": stages})


def split_batches(recipe: Recipe, num_processes: int, auto: Mapping[str, int]) -> Recipe:
    """The recipe with the batch of every stage split over processes and forward passes.

    Args:
        auto: Conversations per device and forward pass, for stages that leave that open, by name.

    Raises:
        RecipeError: Sizes that a stage gives contradict each other.
    """
    stages, problems = [], []
    for stage in recipe.stages:
        try:
            stages.append(stage.split(num_processes, auto.get(stage.name, 1)))
        except ValueError as error:
            problems.append(f"stages.{stage.name}: {error}")
    if problems:
        raise RecipeError(join_lines(problems))
    return recipe.model_copy(update={"stages": stages})


def _resplit(stage: StageConfig, earlier: Mapping[str, Any], before: int, now: int) -> StageConfig:
    """A stage whose step has a size for each process; one with `train_batch_size` keeps that by itself."""
    if stage.train_batch_size is not None or earlier.get("train_batch_size") is not None:
        return stage
    old_size = 1 if earlier.get("packing") else int(earlier["per_device_train_batch_size"])
    old_steps = int(earlier["gradient_accumulation_steps"])
    size = stage.batch_size
    batch = old_size * old_steps * before
    if size * stage.num_passes * now == batch:
        return stage
    steps, rest = divmod(batch, size * now)
    if rest or not steps:
        raise RecipeError(
            f"stages.{stage.name}: an optimiser step was over {batch} samples ({old_size} x {old_steps} steps x "
            f"{before} processes), which {now} processes with {size} each cannot keep. Choose a number of processes "
            f"that divides {batch}, or stages.{stage.name}.per_device_train_batch_size so that both together do; or "
            f"give stages.{stage.name}.train_batch_size={batch} instead of both, which any number keeps."
        )
    return stage.model_copy(update={"gradient_accumulation_steps": steps})
