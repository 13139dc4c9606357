"""Small series and a small encoder, for `adaptkit train --rehearse`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from adaptkit_timeseries.creation import create_model
from adaptkit_timeseries.options import SeriesOptions, SeriesPatchesOptions
from adaptkit_timeseries.series import column_names

_SMALL = {"patch_length": 8, "stride": 8, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
_LENGTHS = (24, 40, 32)
_DEFAULTS = SeriesOptions()


def write_series(directory: Path, number: int, options: SeriesOptions = _DEFAULTS) -> Path:
    """Write a CSV file as the options read it, of two channels unless they name others; another number, another one."""
    length = _LENGTHS[number % len(_LENGTHS)]
    names = _columns(options)
    values = np.random.default_rng(number).normal(size=(length, len(names))).cumsum(0)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"series_{number}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=options.delimiter)
        if options.header:
            table.writerow(names)
        table.writerows([f"{value:.4f}" for value in row] for row in values)
    return path


def _columns(options: SeriesOptions) -> Sequence[str]:
    """Names of the channels of a file that the options can read."""
    chosen = options.columns or ["first", "second"]
    return chosen if options.header else column_names(max([len(chosen), *_places(chosen)]))


def _places(names: Sequence[str]) -> list[int]:
    """Numbers among the names: without a header a column is called by its place."""
    return [int(name) for name in names if name.isdecimal()]


def write_encoder(options: SeriesPatchesOptions, directory: Path) -> SeriesPatchesOptions:
    """Write a small random encoder; returns the same options, naming it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        created = create_model(_SMALL, directory)
    return options.model_copy(update={"path": created.path})
