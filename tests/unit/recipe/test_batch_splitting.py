"""How a recipe's batches are split over processes."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch.utils.data import SequentialSampler

from adaptkit.data.sampler import StepBatches
from adaptkit.errors import RecipeError
from adaptkit.recipe import Recipe, StageConfig, for_processes, load_recipe
from tests.stages import stage_config

TINY = Path(__file__).resolve().parents[3] / "recipes" / "iaa_vision_tiny.yaml"


def recipe(size: int, steps: int, **accelerator: Any) -> Recipe:
    keys = [f"accelerator.{key}={value}" for key, value in accelerator.items()]
    stages = [f"stages.{stage}" for stage in ("align", "pretrain", "instruct", "ground")]
    sizes = [f"{stage}.per_device_train_batch_size={size}" for stage in stages]
    sizes += [f"{stage}.train_batch_size=null" for stage in stages]
    return load_recipe(TINY, [*sizes, *(f"{s}.gradient_accumulation_steps={steps}" for s in stages), *keys])


def as_written(given: Recipe) -> dict[str, Any]:
    return given.model_dump(mode="json")


@pytest.mark.parametrize(("before", "now", "steps"), [(1, 2, 4), (4, 2, 16), (8, 1, 64), (2, 2, 8)])
def test_another_number_of_processes_keeps_the_batch(before: int, now: int, steps: int) -> None:
    asked = recipe(4, 8)
    ran = as_written(for_processes(asked, before))
    again = for_processes(asked, now, ran)
    assert {stage.gradient_accumulation_steps for stage in again.stages} == {steps}
    assert again.accelerator.num_processes == (now if now > 1 else None)


def test_settings_that_keep_the_batch_by_themselves_stay() -> None:
    ran = as_written(for_processes(recipe(4, 8), 2))
    again = for_processes(recipe(8, 2), 4, ran)
    assert {(s.per_device_train_batch_size, s.gradient_accumulation_steps) for s in again.stages} == {(8, 2)}


def test_a_batch_that_cannot_be_kept_is_refused_with_the_numbers() -> None:
    ran = as_written(for_processes(recipe(4, 2), 2))
    words = (
        r"stages.align: an optimiser step was over 16 samples \(4 x 2 steps x 2 processes\), which 3 processes with 4"
    )
    with pytest.raises(RecipeError, match=words):
        for_processes(recipe(4, 2), 3, ran)


def test_packs_count_as_one_whatever_their_length() -> None:
    ran = as_written(for_processes(recipe(4, 8), 2))
    for stage in ran["stages"]:
        stage["packing"] = True
    asked = recipe(4, 8)
    packed = asked.model_copy(update={"stages": [s.model_copy(update={"packing": True}) for s in asked.stages]})
    assert {s.gradient_accumulation_steps for s in for_processes(packed, 4, ran).stages} == {4}


def test_a_launcher_and_a_recipe_that_differ_are_told() -> None:
    with pytest.raises(RecipeError, match=r"accelerator\.num_processes is 4, .* 2"):
        for_processes(recipe(4, 1, strategy="ddp", num_processes=4), 2)


def batch(**sizes: Any) -> StageConfig:
    return stage_config(**sizes)


@pytest.mark.parametrize(
    ("sizes", "processes", "auto", "split"),
    [
        ({"train_batch_size": 256}, 1, 16, (16, 16)),
        ({"train_batch_size": 256}, 8, 16, (16, 2)),
        ({"train_batch_size": 256, "per_device_train_batch_size": 4}, 8, 16, (4, 8)),
        ({"train_batch_size": 256, "gradient_accumulation_steps": 4}, 2, 1, (32, 4)),
        ({"train_batch_size": 256}, 3, 32, (32, 3)),  # the last pass is smaller
        ({"train_batch_size": 2}, 4, 1, (1, 1)),
        ({}, 4, 1, (8, 1)),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 4, 1, (4, 2)),
    ],
)
def test_a_batch_is_split_over_any_number(
    sizes: dict[str, Any], processes: int, auto: int, split: tuple[int, int]
) -> None:
    stage = batch(**sizes)
    divided = stage.split(processes, auto)
    assert (divided.size_per_device, divided.num_passes) == split
    assert divided.step_size(processes) == sizes.get("train_batch_size", split[0] * split[1] * processes)


def test_sizes_that_contradict_each_other_are_named() -> None:
    sizes = {"train_batch_size": 256, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    assert batch(**sizes).split(8, 1).num_passes == 4
    with pytest.raises(
        ValueError, match=r"train_batch_size 256 is 16 forward passes .*gradient_accumulation_steps is 4"
    ):
        batch(**sizes).split(2, 1)
    with pytest.raises(ValidationError, match="auto needs train_batch_size"):
        batch(per_device_train_batch_size="auto")


def test_packs_do_not_depend_on_how_a_batch_is_split() -> None:
    for sizes, length in (({"train_batch_size": 8, "per_device_train_batch_size": 4}, 64),
                          ({"per_device_train_batch_size": 4}, 256)):  # fmt: skip
        assert batch(packing=True, max_length=64, **sizes).row_length == length


@pytest.mark.parametrize("num_samples", [20, 21, 23, 24])
def test_each_step_has_the_same_samples_whatever_its_passes(num_samples: int) -> None:
    steps = {}
    for size in (1, 3, 5, 8, 9):
        batches = StepBatches(SequentialSampler(range(num_samples)), size, 8)
        found = list(batches)
        assert len(found) == len(batches)
        per_step = math.ceil(8 / size)
        steps[size] = [list(chain.from_iterable(found[i : i + per_step])) for i in range(0, len(found), per_step)]
    assert all(each == [list(range(i, min(i + 8, num_samples))) for i in (0, 8, 16)] for each in steps.values())
