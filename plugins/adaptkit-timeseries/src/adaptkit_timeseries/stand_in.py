"""Small series and a small encoder, for `adaptkit train --rehearse`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from adaptkit_timeseries.creation import create_model
from adaptkit_timeseries.options import SeriesPatchesOptions

_SMALL = {"patch_length": 8, "stride": 8, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}
_LENGTHS = (24, 40, 32)


def write_series(directory: Path, number: int) -> Path:
    """Write a CSV file of two channels; another number gives another series."""
    length = _LENGTHS[number % len(_LENGTHS)]
    values = np.random.default_rng(number).normal(size=(length, 2)).cumsum(0)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"series_{number}.csv"
    np.savetxt(path, values, fmt="%.4f", delimiter=",", header="first,second", comments="")
    return path


def write_encoder(options: SeriesPatchesOptions, directory: Path) -> SeriesPatchesOptions:
    """Write a small random encoder; returns the same options, naming it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        created = create_model(_SMALL, directory)
    return options.model_copy(update={"path": created.path})
