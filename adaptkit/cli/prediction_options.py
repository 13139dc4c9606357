"""Command-line options of predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from adaptkit.prediction.stages import PredictionOptions


def prediction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which memory and time are predicted."""
    for option in reversed(
        (
            click.option("--gpus", type=int, help="Devices to predict for; those that a run would use by default."),
            click.option(
                "--gpu-memory",
                metavar="GIB",
                type=click.FloatRange(min=0, min_open=True),
                help="Memory of each, for batch sizes that follow from it; that of the visible GPUs by default.",
            ),
            click.option("--strategy", help="How devices share the work: none, ddp, zero2, zero3 or fsdp."),
            click.option("--batch-size", type=int, help="Conversations per device and forward pass."),
            click.option(
                "--length",
                type=int,
                help="Tokens and media positions per conversation; the stage's max_length by default.",
            ),
            click.option("--supervised", type=float, help="Share of tokens that are supervised; all by default."),
            click.option(
                "--flops",
                metavar="RATE|METRICS.JSONL",
                help="Operations per second of a device (400e12), or an earlier run's metrics on one device.",
            ),
        )
    ):
        command = option(command)
    return command


def parse_options(values: dict[str, Any]) -> PredictionOptions:
    """The options as a prediction takes them.

    Raises:
        RecipeError: A rate is none.
    """
    from adaptkit.prediction.stages import PredictionOptions
    from adaptkit.prediction.timing import parse_rate

    return PredictionOptions(
        num_devices=values["gpus"],
        strategy=values["strategy"],
        batch_size=values["batch_size"],
        length=values["length"],
        supervised=1.0 if values["supervised"] is None else values["supervised"],
        memory=None if values["gpu_memory"] is None else int(values["gpu_memory"] * 2**30),
        rate=None if values["flops"] is None else parse_rate(values["flops"]),
    )


def refuse_options(values: dict[str, Any], why: str, instead: Mapping[str, str] | None = None) -> None:
    """Raise a usage error where one was given that would do nothing.

    Args:
        instead: What one may have been meant as.
    """
    given = [name for name, value in values.items() if value is not None]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        meant = [f"{instead[name]}={values[name]}" for name in given if instead and name in instead]
        raise click.UsageError(f"{names}: {why}" + (f" For the run itself write {' '.join(meant)}." if meant else ""))
