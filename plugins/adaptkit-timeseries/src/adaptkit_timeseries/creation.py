"""An encoder that has seen nothing yet: a start for training, and, frozen, a fair baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit_timeseries.checkpoint import parse_config
from adaptkit_timeseries.encoder import SeriesPatchesModel
from adaptkit_timeseries.options import SeriesPatchesOptions


def create_model(config: dict[str, Any], directory: Path) -> SeriesPatchesOptions:
    """Write a model with random weights, drawn from torch's global generator.

    Args:
        config: Sizes, as in `SeriesPatchesConfig`.
        directory: Made where it is not there; a model that lies in it is overwritten.

    Returns:
        Options that build the encoder from the folder.

    Raises:
        ModelError: A key is unknown, or a value impossible.
    """
    SeriesPatchesModel(parse_config(config, "the config")).save_pretrained(directory)
    return SeriesPatchesOptions(path=str(directory))
