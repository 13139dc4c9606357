"""Predictions as tables of eighty columns, and as values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from adaptkit.cli.terminal import Console
from adaptkit.prediction.stages import PredictionOptions, StagePrediction
from adaptkit.recipe import Recipe

GIB = 2**30
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
_COLUMNS = ("frozen", "trained", "gradients", "optimizer", "activations", "peak")


def show_predictions(
    console: Console,
    recipe: Recipe,
    predictions: Sequence[StagePrediction],
    options: PredictionOptions,
    num_steps: Mapping[str, int] | None = None,
    validations: Mapping[str, float] | None = None,
) -> None:
    """Print what each stage will need.

    Args:
        num_steps: Steps of each stage, where its data is there.
        validations: How many steps the validations of a stage take as long as.
    """
    strategy, num_devices = options.devices(recipe)
    devices = "one device" if num_devices == 1 else f"each of {num_devices} devices ({strategy})"
    console.print(_memory_table(predictions, f"Predicted memory of {devices}, GiB"))
    console.print(_caption(strategy), style="dim", width=80, highlight=False)
    console.print(_time_table(predictions, num_steps or {}, validations or {}))
    if options.rate is None:
        console.print(
            "--flops says how many operations a second a device achieves, and so how long this takes.", style="dim"
        )


def _memory_table(predictions: Sequence[StagePrediction], title: str) -> Table:
    table = Table("stage", title=title, title_justify="left", title_style="bold", box=None)
    for column in ("frozen", "trained", "grads", "optim.", "activ.", "peak"):
        table.add_column(column, justify="right")
    for prediction in predictions:
        sizes = (getattr(prediction.memory, name) / GIB for name in _COLUMNS)
        table.add_row(prediction.name, *(_rounded(size) for size in sizes))
    return table


def _rounded(gib: float) -> str:
    return f"{gib:,.1f}" if gib >= 10 else f"{gib:.2f}" if gib >= 0.1 else f"{gib:.4f}"


def _caption(strategy: str) -> str:
    text = (
        "For the largest batch: conversations of full length, each with one item of every modality. What CUDA itself "
        "takes, and gaps between allocations, come on top."
    )
    if strategy != "none":
        text += " How several devices share weights is estimated, not traced allocation by allocation."
    return text


def _time_table(
    predictions: Sequence[StagePrediction], num_steps: Mapping[str, int], validations: Mapping[str, float]
) -> Table:
    table = Table("stage", box=None)
    for column in ("parameters", "trained", "batch", "steps", "FLOPs/step", "s/step", "time"):
        table.add_column(column, justify="right")
    for prediction in predictions:
        memory, steps = prediction.memory, num_steps.get(prediction.name)
        seconds = prediction.step_s
        whole = None if seconds is None or steps is None else seconds * (steps + validations.get(prediction.name, 0))
        table.add_row(
            prediction.name,
            _scaled(memory.num_frozen + memory.num_trained),
            _scaled(memory.num_trained),
            f"{prediction.shape.num_conversations}x{prediction.shape.length}",
            "?" if steps is None else f"{steps:,}",
            _scaled(prediction.flops),
            "" if seconds is None else f"{seconds:.3g}",
            "" if whole is None else _duration(whole),
        )
    return table


def _scaled(number: float) -> str:
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def as_values(prediction: StagePrediction) -> dict[str, Any]:
    """A prediction for JSON, sizes in bytes."""
    return {
        "stage": prediction.name,
        "batch": asdict(prediction.shape),
        "memory": asdict(prediction.memory),
        "flops_per_step": prediction.flops,
        "seconds_per_step": prediction.step_s,
    }
