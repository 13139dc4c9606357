"""How many processes a recipe starts, and how they share the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.errors import RecipeError
from adaptkit.recipe import Recipe, load_recipe
from adaptkit.run.starting import plan_start

TINY = Path(__file__).resolve().parents[3] / "recipes" / "iaa_vision_tiny.yaml"


def recipe(**accelerator: object) -> Recipe:
    return load_recipe(TINY, [f"accelerator.{key}={value}" for key, value in accelerator.items()])


@pytest.mark.parametrize(
    ("accelerator", "gpus", "number", "strategy"),
    [
        ({"strategy": "auto"}, 0, 1, "none"),
        ({"strategy": "auto"}, 1, 1, "none"),
        ({"strategy": "auto"}, 4, 4, "ddp"),
        ({"strategy": "none"}, 4, 1, "none"),
        ({"strategy": "fsdp"}, 8, 8, "fsdp"),
        ({"strategy": "zero3"}, 1, 1, "none"),  # nothing to divide, so that its package is not needed
        ({"strategy": "fsdp", "num_processes": 2}, 0, 2, "fsdp"),
        ({"strategy": "auto", "num_processes": 2}, 4, 2, "ddp"),
    ],
)
def test_every_visible_gpu_is_used(accelerator: dict[str, object], gpus: int, number: int, strategy: str) -> None:
    start = plan_start(recipe(**accelerator), gpus)
    assert (start.num_processes, start.strategy) == (number, strategy)


def test_what_is_not_used_is_said() -> None:
    assert "strategy=auto uses all" in " ".join(plan_start(recipe(strategy="none"), 4).notes)
    assert "fsdp has nothing to divide" in " ".join(plan_start(recipe(strategy="fsdp"), 1).notes)
    assert "4 processes" in " ".join(plan_start(recipe(strategy="fsdp"), 4).notes)
    assert plan_start(recipe(), 0).notes == plan_start(recipe(), 1).notes == ()


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"num_processes is 8, and 2 GPUs are visible.*--num-processes 2"):
        plan_start(recipe(strategy="ddp", num_processes=8), 2)


def test_a_launcher_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    start = plan_start(recipe(strategy="auto"), 8)
    assert (start.num_processes, start.strategy) == (2, "ddp")


def test_tasks_of_slurm_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(RecipeError, match="WORLD_SIZE"):
        plan_start(recipe(strategy="auto"), 8)
