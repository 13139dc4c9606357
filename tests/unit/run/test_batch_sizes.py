"""How many samples a device takes at once, where a recipe leaves that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptkit.errors import RecipeError
from adaptkit.prediction.building import load_skeletons
from adaptkit.prediction.stages import PredictionOptions, Predictor
from adaptkit.recipe import Recipe, load_recipe
from adaptkit.reporting import Reporter
from adaptkit.run.batch_sizes import USABLE, for_prediction, with_sizes
from adaptkit.testing import tiny_clip_vision, tiny_decoder


class Told(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)

    message = warning


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    tiny_decoder("llama", num_hidden_layers=2).config.save_pretrained(folder / "base")
    tiny_clip_vision().config.save_pretrained(folder / "encoder")
    encoder = {"name": "clip", "path": str(folder / "encoder")}
    values: dict[str, Any] = {
        "base": {"path": str(folder / "base"), "dtype": "float32"},
        "modalities": {"image": {"encoder": encoder, "projector": {"name": "linear"}, "placeholder": "<|none|>"}},
        "workflows": {"vision": {"insertion": {"policy": "inner_adapter", "placement": {"count": 2}}}},
        "data": {"pictures": {"format": "llava", "path": "nowhere.json"}},
        "stages": [
            {"name": "align", "workflow": "vision", "train": ["projector"], "data": {"pictures": 1.0},
             "max_length": 64, "train_batch_size": 48, "optimizer": {"learning_rate": 1e-3}},
        ],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def split(recipe: Recipe) -> tuple[int, int]:
    (stage,) = recipe.stages
    return stage.size_per_device, stage.num_passes


def test_a_device_takes_as_many_samples_as_fit(path: Path) -> None:
    recipe = load_recipe(path)
    predictor = Predictor(load_skeletons(recipe), PredictionOptions())
    peak = {size: predictor.predict(recipe.stages[0].split(1, size)).memory.peak for size in (12, 24)}
    assert peak[12] < peak[24]
    told = Told()
    assert split(with_sizes(recipe, 1, int(peak[24] / USABLE) + 9, told)) == (24, 2)
    assert split(with_sizes(recipe, 1, int(peak[24] / USABLE) - 9, told)) == (12, 4)
    assert split(with_sizes(recipe, 1, 2**40, told)) == (48, 1)
    assert split(with_sizes(recipe, 3, 2**40, told, PredictionOptions(3, "ddp"))) == (16, 1)
    assert told.lines == []
    assert split(with_sizes(recipe, 1, 9, told)) == (1, 48)
    assert "more memory is predicted" in told.lines[0]


def test_a_cpu_takes_what_it_is_fast_with(path: Path) -> None:
    assert split(with_sizes(load_recipe(path), 1, None, Told())) == (24, 2)
    assert split(with_sizes(load_recipe(path, ["stages.align.train_batch_size=32"]), 1, None, Told())) == (32, 1)


def test_a_prediction_is_for_the_devices_that_it_names(path: Path) -> None:
    recipe, told = load_recipe(path), Told()
    assert split(for_prediction(recipe, PredictionOptions(num_devices=2), told)) == (24, 1)
    assert "80 GiB" in told.lines[0]
    assert split(for_prediction(recipe, PredictionOptions(batch_size=16), told)) == (16, 3)
    assert split(for_prediction(recipe, PredictionOptions(memory=9), told)) == (1, 48)


def test_sizes_that_contradict_each_other_name_the_stage(path: Path) -> None:
    wrong = [f"stages.align.{key}" for key in ("per_device_train_batch_size=8", "gradient_accumulation_steps=5")]
    with pytest.raises(RecipeError, match=r"stages.align: train_batch_size 48 is 6 forward passes"):
        with_sizes(load_recipe(path, wrong), 1, None, Told())
