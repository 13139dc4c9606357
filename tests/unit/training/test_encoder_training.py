"""Encoders trained from nothing, on pictures of one colour each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from adaptkit.cli import cli
from adaptkit.errors import DataError, RecipeError
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import load_encoder_recipe
from adaptkit.stage import EncoderTrainingConfig
from adaptkit.training.encoder import LabelledItem, train_encoder

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
CONFIG = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8, "projection_dim": 16,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe on 24 small pictures and 9 held-out ones, each with some noise."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 24), ("test", 9)):
        rows = []
        for i in range(number):
            name = list(COLORS)[i % 3]
            pixels = np.array(COLORS[name]) + rng.integers(-30, 30, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{split}{i}.png")
            rows.append({"image": f"{split}{i}.png", "label": name})
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"format": "table", "question": "color", "answer": "{{ label }}"}
    values = {
        "modality": "image",
        "encoder": {"name": "clip", "config": CONFIG, "options": {"feature_layer": -1}},
        "data_root": str(tmp_path),
        "data": {"train": {**table, "path": "train.jsonl"}, "held_out": {**table, "path": "test.jsonl"}},
        "training": {"num_steps": 40, "batch_size": 12, "warmup_steps": 4, "learning_rate": 3e-3, "evaluate_every": 20},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(recipe: Path, output: Path, *overrides: str) -> str:
    result = CliRunner().invoke(cli, ["train-encoder", str(recipe), *overrides, "--output", str(output)])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_learns_and_is_written_as_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    output = run(recipe, tmp_path / "encoder")
    scores = json.loads((tmp_path / "encoder" / "training.json").read_text())
    assert scores["held_out_accuracy"] >= 0.8
    assert scores["losses"][-1] < scores["losses"][0]
    assert scores["words"] == ["blue", "green", "red"]
    assert "of held-out ones" in output
    encoder = get_plugin_manager().build("encoder", "clip", {"path": str(tmp_path / "encoder")})
    assert not any(p.requires_grad for p in encoder.parameters())


def test_equal_seeds_give_equal_weights(recipe: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(recipe, tmp_path / name, "training.num_steps=4")
    run(recipe, tmp_path / "c", "training.num_steps=4", "training.seed=1")
    a, b, c = (
        get_plugin_manager().build("encoder", "clip", {"path": str(tmp_path / name)}).fingerprint() for name in "abc"
    )
    assert a == b != c


def test_it_may_start_from_a_model_that_is_there(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "first", "training.num_steps=2")
    start = ["encoder.config=null", f"encoder.start_from={tmp_path / 'first'}"]
    run(recipe, tmp_path / "second", *start, "training.num_steps=1", "training.learning_rate=1e-12")
    weights = [
        get_plugin_manager().build("encoder", "clip", {"path": str(tmp_path / name)}).state_dict()
        for name in ("first", "second")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.name=clp"], "Did you mean 'clip'"),
        (["modality=imge"], "Did you mean 'image'"),
        (["modality_options.backgrund=black"], "modality_options.backgrund"),
        (["encoder.start_from=world:encoder"], "start_from, an existing model"),
        (["encoder.options.feature_lyer=1"], "options.feature_lyer"),
        (["encoder.config.hidden_sze=8"], "hidden_size"),
        (["encoder.config=null", "encoder.start_from=/gone"], "encoder.start_from"),
        (["data.train.path=gone.jsonl"], "data.train"),
        (["training.num_steps=0"], "num_steps"),
        (["data.held_out.answer=is {{ label }}"], "no training item has the word(s) 'is'"),
        (["data.held_out=null", "data.other={format: table, path: x, question: q, answer: a}"], "'train'"),
    ],
)
def test_wrong_recipes(recipe: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["train-encoder", str(recipe), *overrides, "--output", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    result = CliRunner().invoke(cli, ["train-encoder", str(recipe), "--output", str(tmp_path / "taken")])
    assert result.exit_code == 2
    assert "exists already" in result.output


def test_several_words_count_each(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "out", "data.train.answer=a {{ label }}", "data.held_out.answer=a {{ label }}")
    scores = json.loads((tmp_path / "out" / "training.json").read_text())
    assert scores["words"] == ["a", "blue", "green", "red"]
    assert scores["train_accuracy"] > 0.5


def test_there_must_be_something_to_tell(tmp_path: Path) -> None:
    component = get_plugin_manager().get("encoder", "clip")
    encoder = component.build(component.create(CONFIG, tmp_path / "new"))
    settings = EncoderTrainingConfig(num_steps=1)
    with pytest.raises(DataError, match="nothing to tell apart"):
        train_encoder(encoder, [LabelledItem(lambda rng: None, "same")], [], settings)


def test_the_root_may_be_a_variable(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe.write_text(recipe.read_text().replace(f"data_root: {recipe.parent}", "data_root: ${SOMEWHERE}"))
    monkeypatch.setenv("SOMEWHERE", str(recipe.parent))
    assert load_encoder_recipe(recipe).data_folder() == recipe.parent
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(RecipeError, match="SOMEWHERE is not set"):
        load_encoder_recipe(recipe).data_folder()


def test_the_other_kind_of_recipe_is_named(recipe: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["train", str(recipe)])
    assert result.exit_code == 2
    assert "it is a recipe for `adaptkit train-encoder`" in result.output
    (tmp_path / "run.yaml").write_text("workflows: {}")
    result = CliRunner().invoke(cli, ["train-encoder", str(tmp_path / "run.yaml")])
    assert result.exit_code == 2
    assert "it is a recipe for `adaptkit train`" in result.output


def test_the_modality_takes_its_options(recipe: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["train-encoder", str(recipe), "modality_options.max_pixels=9", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "pixels" in result.output
