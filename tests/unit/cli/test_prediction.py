"""Predictions on the command line: models that have a config and no weights, data that is not there."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.errors import RecipeError
from adaptkit.prediction.timing import parse_rate
from adaptkit.testing import tiny_clip_vision, tiny_decoder


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env={"COLUMNS": "80"})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    tiny_decoder("llama", num_hidden_layers=2).config.save_pretrained(folder / "base")
    tiny_clip_vision().config.save_pretrained(folder / "encoder")
    stage = {
        "workflow": "vision", "data": {"pictures": 1.0}, "max_steps": 30, "max_length": 64,
        "per_device_train_batch_size": 2, "optimizer": {"learning_rate": 1e-3},
    }  # fmt: skip
    values = {
        "name": "small",
        "base": {"path": str(folder / "base"), "dtype": "float32"},
        "modalities": {
            "image": {"encoder": {"name": "clip", "path": str(folder / "encoder")}, "projector": {"name": "mlp2x_gelu"},
                      "placeholder": "<|not in this vocabulary|>"}
        },
        "workflows": {"vision": {"insertion": {"policy": "inner_adapter", "placement": {"count": 2}}}},
        "data": {"pictures": {"format": "llava", "path": str(folder / "nowhere.json")}},
        "stages": [
            {"name": "align", "train": ["projector"], **stage},
            {"name": "instruct", "train": ["projector", "insertion"], "start_from": "align", **stage},
        ],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text("# Predicted alone.\n" + yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_dry_run_needs_configs_alone_and_fits_eighty_columns(recipe) -> None:
    result = invoke("train", recipe, "--dry-run", "--flops", "1e9", "--gpus", 4, "--strategy", "ddp")
    assert result.exit_code == 2, result.output  # it says that the run cannot start
    for words in (
        "each of 4 devices (ddp)",
        "nowhere.json",
        "tokenizer of base.path",
        "FLOPs/step",
        "nothing was trained",
    ):
        assert words in " ".join(result.output.split()), words
    table = result.output[result.output.index("Predicted memory") : result.output.index("Not on this machine")]
    assert max(map(len, table.splitlines())) <= 80


def test_inspect_predicts_each_stage_as_json_packed_bases_too(recipe) -> None:
    described = {}
    for quantization in ("null", "nf4"):
        result = invoke("inspect", recipe, f"base.quantization={quantization}", "--json", "--length", 48)
        assert result.exit_code == 0, result.output
        described[quantization] = json.loads(result.stdout)["vision"]
    align, instruct = described["null"]["stages"]
    assert align["batch"] == {"num_conversations": 2, "length": 48, "packing": False, "supervised": 1.0}
    assert align["memory"]["num_trained"] < instruct["memory"]["num_trained"]
    assert instruct["memory"]["peak"] > instruct["memory"]["frozen"] + 3 * instruct["memory"]["trained"]
    assert align["seconds_per_step"] is None
    packed, plain = (described[kind]["stages"][0]["memory"] for kind in ("nf4", "null"))
    assert packed["num_frozen"] == plain["num_frozen"]
    assert packed["frozen"] < plain["frozen"]
    base, unpacked = (described[kind]["components"][0] for kind in ("nf4", "null"))
    assert (base["num_parameters"], base["num_bytes"] < unpacked["num_bytes"]) == (unpacked["num_parameters"], True)


def test_a_workflow_that_no_stage_trains_is_passed_over(recipe) -> None:
    unused = "workflows.unused.like=vision"
    result = invoke("inspect", recipe, unused, "--json")
    assert result.exit_code == 0, result.output
    assert "no stage trains the workflow 'unused'" in result.stderr
    assert list(json.loads(result.stdout)) == ["vision"]
    result = invoke("inspect", recipe, unused, "--workflow", "unused")
    assert result.exit_code == 2
    assert "no stage trains the workflow 'unused'" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", -1], "-1 devices cannot train"),
        (["--gpus", 2, "--strategy", "zero9"], "Did you mean"),
        (["--flops", "fast"], "'fast' is not a rate"),
        (["--length", 10], "leave no room"),
        (["--batch-size", 0], "trains nothing"),
        (["--supervised", 2], "cannot be learned"),
    ],
)
def test_options_that_make_no_sense_are_one_message(recipe, options, words) -> None:
    result = invoke("inspect", recipe, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


def test_options_that_would_do_nothing_are_refused(recipe, tmp_path) -> None:
    assert "only --dry-run predicts" in invoke("train", recipe, "--gpus", 2).output
    for useless in (["--gpus", 2], ["seed=1"]):
        assert "this is a checkpoint" in " ".join(invoke("inspect", tmp_path, *useless).output.split())


def test_a_rate_is_a_number_or_what_a_run_measured(tmp_path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rates = [1e12, 3e12, 2e12, None]
    metrics.write_text("".join(json.dumps({"step": 1, "flops_per_second": rate}) + "\n" for rate in rates))
    assert parse_rate(str(metrics)) == 2e12
    assert parse_rate("400e12") == 400e12
    metrics.write_text("{}\n")
    for wrong in ("-1", "inf", "0", str(metrics), str(tmp_path / "none.jsonl")):
        with pytest.raises(RecipeError):
            parse_rate(wrong)
