"""Kills runs of a whole recipe outside of training, resumes them, and reports what they left."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from adaptkit.processes.group import is_main_process
from adaptkit.recipe import load_recipe
from adaptkit.reporting import Reporter
from adaptkit.run import scoring as evaluating
from adaptkit.run.runner import train_recipe
from adaptkit.run.scoring import evaluate_run
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.distributed.forking import forked

# A file that is opened, renamed or removed at each moment: before the recipe is there, between the stages, while the
# result is written, and while it is evaluated and told
MOMENTS = {
    "recipe": ("os.rename", ".staging-recipe.yaml"),
    "between": ("os.mkdir", "instruct"),
    "final": ("os.rename", "final/.staging"),
    "second": ("os.mkdir", "final/.staging-grounding"),
    "results": ("open", ".staging-results.json"),
    "report": ("open", "report.html"),
}


def prepare(folder: Path) -> None:
    """Write models, data and the recipe."""
    folder.mkdir(parents=True)
    tiny_decoder("llama", num_hidden_layers=2).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "encoder")
    Image.new("RGB", (30, 20), (200, 90, 60)).save(folder / "picture.png")
    rows = []
    for number in range(10):
        tag = {} if number % 5 else {"image": "picture.png"}  # some processes of a step have none
        turns = [
            {"from": "human", "value": "<image>\nwhich?" if tag else "which?"},
            {"from": "gpt", "value": f"number {number}"},
        ]
        rows.append({"id": number, **tag, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    (folder / "recipe.yaml").write_text("# A small run.\n" + yaml.safe_dump(_recipe(folder), sort_keys=False))


def _recipe(folder: Path) -> dict[str, Any]:
    encoder = {"name": "clip", "path": str(folder / "encoder")}
    stage = {
        "data": {"pictures": 1.0},
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "optimizer": {"learning_rate": 1e-3},
    }
    everything = ["projector", "insertion", "ends"]
    return {
        "name": "small",
        "base": {"path": str(folder / "base"), "dtype": "float32"},
        "modalities": {"image": {"encoder": encoder, "projector": {"name": "linear"}, "cache_features": True}},
        "workflows": {
            "vision": {"insertion": {"policy": "inner_adapter", "placement": {"count": 2}}, "replace_ends": True},
            "grounding": {"like": "vision"},
        },
        "data": {"pictures": {"format": "llava", "path": str(folder / "data.json")}},
        "stages": [
            {"name": "instruct", "workflow": "vision", "train": everything, **stage},
            {"name": "ground", "workflow": "grounding", "train": everything, "start_from": "instruct", **stage},
        ],
        "logging": {"report_to": []},
    }


STAGES = ("instruct", "ground")
SPLITS: dict[str, tuple[int, int | str]] = {"alone": (1, "auto"), "passes": (1, 3), "two": (2, 1), "four": (4, "auto")}
"""Processes that share a batch, and samples of each and of a forward pass: of 4, of which 3 and 1 are two passes."""


class DieAt:
    """Ends this process at a file operation."""

    def __init__(self, moment: str | None) -> None:
        self.event, self.path = MOMENTS.get(moment or "", ("", ""))
        if moment is not None:
            sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == self.event and self.path in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, recipe: Path, moment: str | None, overrides: tuple[str, ...] = ()) -> None:
    os.environ["ADAPTKIT_CACHE"] = str(recipe.parent / "cache")
    DieAt(moment)
    done = train_recipe(load_recipe(recipe, overrides), folder, Reporter(), resume="auto")
    evaluating.prove_text = lambda workflows, reporter: {
        "logits_identical": None,
        "note": "takes as long as a run here",
    }
    if is_main_process():
        evaluate_run(done, time.monotonic(), "adaptkit train")


def main(work: Path) -> dict[str, Any]:
    """What a run left that nobody disturbed, those that were killed at each moment, and those in several processes."""
    recipe = work / "recipe.yaml"
    assert forked(1, partial(run, work / "whole", recipe, None)) == [0]
    told = {"whole": _left(work / "whole"), "killed": {}, "several": {}, "any_number": any_number(work)}
    for moment in MOMENTS:
        folder = work / moment
        assert forked(1, partial(run, folder, recipe, moment)) == [-signal.SIGKILL], moment
        assert forked(1, partial(run, folder, recipe, None)) == [0], moment
        told["killed"][moment] = _left(folder)
    split = tuple(f"stages.{stage}.per_device_train_batch_size=2" for stage in STAGES)
    options = (*split, "accelerator.strategy=fsdp")
    assert forked(2, partial(run, work / "fsdp", recipe, None, options)) == [0, 0]
    told["several"]["fsdp"] = _left(work / "fsdp")
    return told


def any_number(work: Path) -> dict[str, list[dict[str, Any]]]:
    """What the steps of a recipe are in different numbers of processes; the last of an epoch has 2 samples of 4."""
    told = {}
    for name, (num_processes, size) in SPLITS.items():
        values = {"train_batch_size": 4, "per_device_train_batch_size": size, "max_steps": -1, "num_train_epochs": 2}
        options = tuple(f"stages.{stage}.{key}={value}" for stage in STAGES for key, value in values.items())
        assert forked(num_processes, partial(train, work / name, work / "recipe.yaml", options)) == [0] * num_processes
        lines = [json.loads(line) for line in (work / name / "metrics.jsonl").read_text().splitlines()]
        told[name] = [{key: line[key] for key in ("stage", "step", "loss", "learning_rate")} for line in lines]
    return told


def train(folder: Path, recipe: Path, overrides: tuple[str, ...]) -> None:
    os.environ["ADAPTKIT_CACHE"] = str(recipe.parent / "cache")
    train_recipe(load_recipe(recipe, overrides), folder, Reporter())


def _left(folder: Path) -> dict[str, Any]:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {
        "files": files,
        "weights": {
            name: hashlib.sha256((folder / "final" / name / "model.safetensors").read_bytes()).hexdigest()
            for name in ("vision", "grounding")
        },
        "losses": [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "num_processes": yaml.safe_load((folder / "recipe.yaml").read_text())["accelerator"].get("num_processes"),
    }
