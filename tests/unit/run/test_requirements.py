"""What a recipe needs and this machine lacks, named together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from adaptkit.errors import RecipeError
from adaptkit.recipe import load_recipe
from adaptkit.run.requirements import require_all

TINY = Path(__file__).resolve().parents[3] / "recipes" / "iaa_vision_tiny.yaml"

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")


def test_weights_data_gpus_and_packages_are_named_in_that_order() -> None:
    settings = ["base.path=no/such", "data.world_boxes={format: llava, path: gone.json}", "accelerator.strategy=zero2"]
    with pytest.raises(RecipeError) as caught:
        require_all(load_recipe(TINY, settings))
    names = ["base.path", "data.world_boxes", "GPUs: none", "needs DeepSpeed", "--rehearse"]
    if importlib.util.find_spec("deepspeed"):
        names.remove("needs DeepSpeed")
    places = [str(caught.value).index(name) for name in names]
    assert places == sorted(places)


def test_a_small_recipe_is_not_told_of_gpus_even_if_something_is_missing() -> None:
    with pytest.raises(RecipeError) as caught:
        require_all(load_recipe(TINY, ["base.path=no/such"]))
    assert "GPU" not in str(caught.value)


def test_a_recipe_for_gpus_may_run_on_a_cpu_that_holds_it() -> None:
    require_all(load_recipe(TINY, ["accelerator.strategy=zero2", "stage_defaults.bf16=true"]))
