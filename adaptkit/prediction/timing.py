"""From operations to time, by a rate that was measured or is given."""

from __future__ import annotations

import statistics
from pathlib import Path

from adaptkit.errors import RecipeError
from adaptkit.training.metrics import read_metrics


def parse_rate(given: str) -> float:
    """Operations per second that one device achieves.

    Args:
        given: A number, `400e12`, or the `metrics.jsonl` of an earlier run on one device, whose median is taken.

    Raises:
        RecipeError: It is neither.
    """
    path = Path(given)
    if path.suffix == ".jsonl" or path.is_file():
        rates = [line["flops_per_second"] for line in read_metrics(path) if line.get("flops_per_second")]
        if not rates:
            raise RecipeError(f"{given} holds no flops_per_second: name the metrics.jsonl of a run, or give a number.")
        return float(statistics.median(rates))
    try:
        rate = float(given)
    except ValueError:
        raise RecipeError(f"{given!r} is not a rate: give operations per second (400e12) or a metrics.jsonl.") from None
    if not 0 < rate < float("inf"):
        raise RecipeError(f"a device cannot compute {given} operations per second.")
    return rate
