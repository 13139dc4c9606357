"""How many samples of an optimiser step a device takes at once, where a recipe leaves that open."""

from __future__ import annotations

import math
from bisect import bisect_left

import torch

from adaptkit.errors import ModelError, RecipeError
from adaptkit.prediction.building import load_skeletons
from adaptkit.prediction.stages import PredictionOptions, Predictor
from adaptkit.recipe import Recipe, StageConfig, split_batches
from adaptkit.reporting import Reporter

MAX_SIZE = 256
MAX_SIZE_ON_CPU = 32
"""Larger batches are no faster there."""

ASSUMED_MEMORY = 80 * 2**30
"""Of GPUs that are planned for."""

USABLE = 0.85
"""Share of a device's memory that a prediction may take; CUDA itself, and gaps between allocations, take some more."""


def device_memory() -> int | None:
    """Bytes of the smallest visible GPU; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def for_prediction(recipe: Recipe, options: PredictionOptions, reporter: Reporter) -> Recipe:
    """The recipe with its batches split as the devices of a prediction would; `batch_size` stands where it is given.

    Where GPUs are asked for and none is visible, they are taken to have `ASSUMED_MEMORY`.

    Raises:
        RecipeError: As `with_sizes`.
    """
    _, number = options.devices(recipe)
    stages = recipe.stages
    if options.batch_size is not None:
        update = {"per_device_train_batch_size": max(1, options.batch_size)}
        open_ones = {"gradient_accumulation_steps": None}
        stages = [s.model_copy(update=update | (open_ones if s.train_batch_size else {})) for s in stages]
    memory = options.memory or device_memory()
    if memory is None and options.num_devices is not None and any(map(_is_open, stages)):
        reporter.message(f"batch sizes are for GPUs of {ASSUMED_MEMORY // 2**30} GiB; --gpu-memory names another size")
        memory = ASSUMED_MEMORY
    return with_sizes(recipe.model_copy(update={"stages": stages}), number, memory, reporter, options)


def with_sizes(
    recipe: Recipe,
    num_processes: int,
    memory: int | None,
    reporter: Reporter,
    options: PredictionOptions | None = None,
) -> Recipe:
    """The recipe with the batches of its stages split: `auto` is as many samples as are predicted to fit.

    Args:
        memory: Bytes of a device; None for a CPU.
        reporter: Told where a prediction is not possible, or where not even one sample fits.
        options: What else the prediction is for.

    Raises:
        RecipeError: Sizes that a stage gives contradict each other, or models have no config here.
    """
    is_open = [stage for stage in recipe.stages if _is_open(stage)]
    if memory is None or not is_open:
        return split_batches(recipe, num_processes, {s.name: _candidates(s, num_processes, MAX_SIZE_ON_CPU)[-1]
                                                     for s in is_open})  # fmt: skip
    predictor = Predictor(load_skeletons(recipe), options or PredictionOptions(num_devices=num_processes))
    sizes = {s.name: _largest_fitting(s, num_processes, memory, predictor, reporter) for s in is_open}
    return split_batches(recipe, num_processes, sizes)


def _is_open(stage: StageConfig) -> bool:
    return stage.per_device_train_batch_size == "auto" and stage.gradient_accumulation_steps is None


def _candidates(stage: StageConfig, num_processes: int, limit: int) -> list[int]:
    """Sizes that split a device's share evenly into 1, 2, 4… passes, ascending."""
    share = math.ceil((stage.train_batch_size or 1) / num_processes)
    sizes = {math.ceil(share / 2**power) for power in range(share.bit_length() + 1)}
    return sorted(size for size in sizes if size <= limit)


def _largest_fitting(
    stage: StageConfig, num_processes: int, memory: int, predictor: Predictor, reporter: Reporter
) -> int:
    sizes = _candidates(stage, num_processes, MAX_SIZE)
    where = f"stages.{stage.name}: per_device_train_batch_size is"

    def is_too_large(size: int) -> bool:
        return predictor.predict(stage.split(num_processes, size)).memory.peak > USABLE * memory

    try:
        number = bisect_left(sizes, True, key=is_too_large)
    except (ModelError, RecipeError) as error:
        reporter.warning(f"{where} {sizes[0]}, since what fits cannot be predicted: {error}")
        return sizes[0]
    if number == 0:
        reporter.warning(
            f"{where} {sizes[0]}, and more memory is predicted even for that than the {memory / 2**30:.0f} GiB of a "
            "device. `adaptkit inspect RECIPE` shows what takes it; docs/how-to/memory.md what to do."
        )
    return sizes[max(0, number - 1)]
