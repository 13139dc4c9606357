"""One run of a comparison, in a process of its own: its memory is its own, and so is its end.

It trains and evaluates the recipe that lies in its directory, and resumes where an earlier attempt was stopped. What it
measured is written last, in one step: a run is finished where that file exists. `adaptkit.cli.compare_worker` is its
program.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from adaptkit.errors import AdaptkitError
from adaptkit.files.versions import versions
from adaptkit.files.writing import write_json
from adaptkit.model.run_folders import FINAL_FOLDER
from adaptkit.recipe import Recipe, load_recipe
from adaptkit.reporting import Reporter
from adaptkit.run.runner import METRICS_FILE, Run, train_recipe
from adaptkit.run.scoring import evaluate_run, require_unchanged_text
from adaptkit.training.metrics import read_metrics

VARIANT_FILE = "variant.yaml"
"""The recipe of a run, with its seed, as the comparison wrote it."""

MEASURED_FILE = "measured.json"
"""Costs of a finished run, and where they were measured."""

FAILED_FILE = "failed.json"
"""Why the last attempt failed."""


_LOCK_S = 60  # for the process of a comparison that was killed this moment to be gone


def main(directory: Path, reporter: Reporter) -> int:
    """Do the run, and return the exit code of the process."""
    _end_with_parent()
    (directory / FAILED_FILE).unlink(missing_ok=True)
    try:
        with FileLock(directory / ".lock", timeout=_LOCK_S):
            measured = train_and_measure(load_recipe(directory / VARIANT_FILE), directory, reporter)
    except AdaptkitError as error:
        write_json(directory / FAILED_FILE, {"reason": str(error)})
        return error.exit_code
    except Exception as error:
        write_json(directory / FAILED_FILE, {"reason": f"{type(error).__name__}: {error}"})
        raise
    write_json(directory / MEASURED_FILE, measured)
    return 0


def train_and_measure(recipe: Recipe, directory: Path, reporter: Reporter) -> dict[str, Any]:
    """Train and evaluate a recipe into a run directory, and return what it cost.

    Returns:
        `costs`, by the last part of a cost's key, and `environment`.
    """
    started = time.monotonic()
    run = train_recipe(recipe, directory, reporter, resume="auto")
    memory = peak_memory()
    require_unchanged_text(evaluate_run(run, started, f"adaptkit train {VARIANT_FILE}"), recipe)
    samples, seconds = training_speed(
        recipe, read_metrics(directory / METRICS_FILE), {name: stage.seconds for name, stage in run.stages.items()}
    )
    costs = {
        "trainable_parameters": _trainable_parameters(run),
        "checkpoint_bytes": sum(path.stat().st_size for path in (directory / FINAL_FOLDER).rglob("*.safetensors")),
        "peak_memory_bytes": memory,
        "training_seconds": round(seconds, 2),
        "samples_per_second": round(samples / seconds, 2),
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    environment = {
        "device": device,
        "threads": torch.get_num_threads(),
        "memory": "allocated on the device" if torch.cuda.is_available() else "resident set of the process",
        "versions": versions(),
    }
    return {"costs": costs, "environment": environment}


def training_speed(
    recipe: Recipe, lines: Sequence[Mapping[str, Any]], clocked: Mapping[str, float]
) -> tuple[int, float]:
    """Samples trained on, and the seconds that took, from a run's metrics: right also for runs that were interrupted.

    Time is that of optimiser steps as they were logged; what a stage spends on starting and saving is excluded, and so
    is what an interruption made it do twice. A stage too short to be logged counts by the clock.

    Args:
        recipe: Its stages give the samples of a step.
        lines: Of `metrics.jsonl`.
        clocked: Seconds this process spent in each stage.
    """
    total, seconds = 0, 0.0
    for stage in recipe.stages:
        logged = [line for line in lines if line["stage"] == stage.name and line.get("samples_per_second")]
        steps = [0, *(int(line["step"]) for line in logged)]
        per_step = stage.step_size()
        total += steps[-1] * per_step
        for before, after, line in zip(steps, steps[1:], logged):
            seconds += (after - before) * per_step / float(line["samples_per_second"])
        if not logged and stage.max_steps > 0 and clocked.get(stage.name):
            total += stage.max_steps * per_step
            seconds += clocked[stage.name]
    return total, max(seconds, 1e-9)


def peak_memory() -> int:
    """Bytes at the highest point so far: on the accelerator where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process was before it became this program
        peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peak[0].split()[1]) * 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _trainable_parameters(run: Run) -> int:
    """Elements of all tensors that any stage trained, over all workflows."""
    total = 0
    for name, (model, _) in run.workflows.items():
        trained = {part for stage in run.recipe.stages if stage.workflow == name for part in stage.train}
        sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
        total += sum(sizes[key] for part, keys in model.trainable_parts().items() if part in trained for key in keys)
    return total


def _end_with_parent() -> None:
    """End at once when the comparison ends, however it ends: standard input, whose other end it holds, closes then."""

    def watch() -> None:
        while os.read(0, 1024):  # unbuffered: a lock held by this thread would abort the end of the process
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
