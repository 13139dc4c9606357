"""How the batches of a recipe are split over processes, and split again when a run resumes with another number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.errors import RecipeError
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


def _resplit(stage: StageConfig, earlier: Mapping[str, Any], before: int, now: int) -> StageConfig:
    old_size = 1 if earlier.get("packing") else int(earlier["per_device_train_batch_size"])
    old_steps = int(earlier["gradient_accumulation_steps"])
    size = stage.batch_size
    batch = old_size * old_steps * before
    if size * stage.gradient_accumulation_steps * now == batch:
        return stage
    steps, rest = divmod(batch, size * now)
    if rest or not steps:
        raise RecipeError(
            f"stages.{stage.name}: an optimiser step was over {batch} samples ({old_size} x {old_steps} steps x "
            f"{before} processes), which {now} processes with {size} each cannot keep. Choose a number of processes "
            f"that divides {batch}, or stages.{stage.name}.per_device_train_batch_size so that both together do."
        )
    return stage.model_copy(update={"gradient_accumulation_steps": steps})
