"""How a recipe's batches are split over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptkit.errors import RecipeError
from adaptkit.recipe import Recipe, for_processes, load_recipe

TINY = Path(__file__).resolve().parents[3] / "recipes" / "iaa_vision_tiny.yaml"


def recipe(size: int, steps: int, **accelerator: Any) -> Recipe:
    keys = [f"accelerator.{key}={value}" for key, value in accelerator.items()]
    stages = [f"stages.{stage}" for stage in ("align", "pretrain", "instruct", "ground")]
    sizes = [f"{stage}.per_device_train_batch_size={size}" for stage in stages]
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
