"""Whole runs by `adaptkit train --num-processes`, torchrun and accelerate: several interpreters each, so minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import recipe_runs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
    pytest.mark.timeout(900),
]

ADAPTKIT = [sys.executable, "-m", "adaptkit"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "adaptkit"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "bf16", "--dynamo_backend", "no", "-m", "adaptkit.__main__"),
]
SPLIT = [f"stages.{stage}.per_device_train_batch_size=2" for stage in ("instruct", "ground")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    recipe_runs.prepare(folder / "small")
    return folder / "small" / "recipe.yaml"


def start(command: list[str], *arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ADAPTKIT_CACHE": str(Path(arguments[0]).parent / "cache")}
    words = [*command, "train", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_launcher_means_the_same(recipe: Path, tmp_path: Path) -> None:
    ours = [*SPLIT, "accelerator.strategy=ddp"]
    commands = {
        "alone": (ADAPTKIT, []),
        "adaptkit": (ADAPTKIT, [*ours, "--num-processes", "2"]),
        "torchrun": (TORCHRUN, ours),
        "accelerate": (ACCELERATE, ours),
    }
    for name, (command, arguments) in commands.items():
        process = start(command, recipe, *arguments, "--output", tmp_path / name)
        out, err = process.communicate()
        assert process.returncode == 0, f"{name}\n{out}\n{err}"
        assert out.count("Stage 1/2: instruct") == 1, name
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "alone"), rel=1e-5), name
        assert (tmp_path / name / "final" / "grounding" / "model.safetensors").is_file()


def test_a_mistake_is_told_once(recipe: Path, tmp_path: Path) -> None:
    bad = ["accelerator.strategy=ddp", "--num-processes", "2", "data.pictures.path=nowhere.json"]
    process = start(ADAPTKIT, recipe, *bad, "--output", tmp_path / "run")
    out, err = process.communicate()
    assert process.returncode == 2
    assert err.count("nowhere.json") == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGTERM, 143, "; continue with --resume auto"), (signal.SIGINT, 130, "Error: interrupted.")],
)
def test_signals_end_a_run_and_it_goes_on(recipe: Path, tmp_path: Path, number: int, code: int, words: str) -> None:
    folder = tmp_path / "run"
    long = ["stages.instruct.max_steps=3000", "stages.instruct.save_steps=20", *SPLIT, "accelerator.strategy=ddp"]
    arguments = [recipe, *long, "--num-processes", "2", "--output", folder]
    process = start(ADAPTKIT, *arguments)
    while not list(folder.glob("instruct/checkpoint-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, out + err
    assert err.count(words) == 1
    saved = max(int(path.name.split("-")[1]) for path in folder.glob("instruct/checkpoint-*"))
    arguments[1] = f"stages.instruct.max_steps={saved + 3}"
    process = start(ADAPTKIT, *arguments, "--resume", "auto")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["stage"] == "instruct"] == list(range(1, saved + 4))
