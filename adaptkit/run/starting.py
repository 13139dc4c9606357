"""How many processes a run starts on this machine, and how they share the work."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from adaptkit.errors import RecipeError
from adaptkit.processes.group import ENGINES, check_strategy, is_launched, num_processes
from adaptkit.recipe import Recipe


@dataclass(frozen=True)
class Start:
    """What runs a recipe here.

    Attributes:
        num_processes: One for each GPU that is used, or for one CPU.
        num_gpus: GPUs that this process sees.
        strategy: How they share the work: `none` for one.
        notes: What a user may not expect of this, in sentences.
    """

    num_processes: int
    num_gpus: int
    strategy: str
    notes: tuple[str, ...] = ()


def plan_start(recipe: Recipe, num_gpus: int | None = None) -> Start:
    """What a recipe starts: as many processes as it asks for, or one for each visible GPU, or one.

    A process that a launcher has started (torchrun, accelerate, Slurm) starts none.

    Args:
        num_gpus: GPUs of this machine, where they are not those that are visible.

    Raises:
        RecipeError: The recipe asks for more processes than there are GPUs, its strategy does not suit them, or a
            launcher has started processes that do not know of each other.
    """
    gpus = torch.cuda.device_count() if num_gpus is None else num_gpus
    number = num_processes() if is_launched() else _wanted(recipe, gpus)
    strategy = recipe.accelerator.strategy_of(number)
    check_strategy(strategy, number)
    return Start(number, gpus, strategy, tuple(_notes(recipe, number, gpus)))


def meant_for_gpus(recipe: Recipe) -> bool:
    """Whether a recipe's settings are those of large models: sharding, or bfloat16."""
    return recipe.accelerator.strategy in ENGINES or any(stage.bf16 for stage in recipe.stages)


def _wanted(recipe: Recipe, gpus: int) -> int:
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        raise RecipeError(
            f"srun started this command {tasks} times, and each would train by itself. Let each know of the others by "
            "WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT: docs/how-to/many-gpus.md has the script. For "
            "the GPUs of one machine, give srun one task (--ntasks 1): adaptkit starts a process for each."
        )
    asked = recipe.accelerator.num_processes
    if asked is None:
        return 1 if recipe.accelerator.strategy == "none" else max(1, gpus)
    if 0 < gpus < asked:
        raise RecipeError(
            f"accelerator.num_processes is {asked}, and {gpus} GPU{'s are' * (gpus > 1) or ' is'} visible: each "
            f"process takes one. Ask for at most {gpus} (--num-processes {gpus}), or for none, which takes all."
        )
    return asked


def _notes(recipe: Recipe, number: int, gpus: int) -> list[str]:
    strategy, notes = recipe.accelerator.strategy, []
    if number > 1 and not is_launched() and recipe.accelerator.num_processes is None:
        notes.append(f"{number} processes, one for each visible GPU, by {recipe.accelerator.strategy_of(number)}")
    if gpus == 0 and number == 1 and meant_for_gpus(recipe):
        notes.append("no GPU is visible: this trains on the CPU")
    if number == 1 and strategy not in ("none", "auto"):
        notes.append(f"one process: accelerator.strategy={strategy} has nothing to divide, and does nothing")
    if number == 1 and strategy == "none" and gpus > 1 and recipe.accelerator.num_processes is None:
        notes.append(
            f"uses one of {gpus} visible GPUs, since accelerator.strategy is none; accelerator.strategy=auto uses all"
        )
    return notes
