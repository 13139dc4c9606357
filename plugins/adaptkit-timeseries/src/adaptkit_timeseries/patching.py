"""Series as patches: what the encoder reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit.errors import DataError
from adaptkit.interfaces import Preprocessor
from adaptkit_timeseries.checkpoint import SeriesPatchesConfig, read_config
from adaptkit_timeseries.options import SeriesPatchesOptions
from adaptkit_timeseries.series import Series

INPUT_NAME = "series_patches"
_EPS = 1e-5


class SeriesPreprocessor(Preprocessor):
    """Normalises each channel, and cuts it into overlapping patches, as PatchTST does (arXiv 2211.14730, section 3.1).

    Mean and scale, which normalisation takes away, follow the values of every patch as two more numbers.

    Args:
        config: Length and stride of the patches.
        max_positions: Patches of all channels together beyond which a series is refused.
    """

    input_name = INPUT_NAME

    def __init__(self, config: SeriesPatchesConfig, max_positions: int) -> None:
        self.config, self.max_positions = config, max_positions

    def __call__(self, item: Any) -> Tensor:
        """Patches of a loaded series, `(channels, patches, patch_length + 2)`.

        Raises:
            DataError: It is not a loaded series, or gives more patches than `max_positions`.
        """
        if not isinstance(item, Series):
            raise DataError(f"the encoder takes a series that the modality `series` loaded, not {type(item).__name__}.")
        length, channels = item.values.shape
        count = self.num_patches(length)
        if channels * count > self.max_positions:
            raise DataError(
                f"a series of {length:,} rows and {channels} channels takes {channels * count:,} positions, more than "
                f"the limit of {self.max_positions:,} (max_positions). Shorten it, read fewer columns, or raise it."
            )
        values, statistics = _normalised(item.values.T)
        patches = self._patches(values, count)
        repeated = np.broadcast_to(statistics[:, None], (*patches.shape[:2], statistics.shape[1]))
        return torch.from_numpy(np.concatenate([patches, repeated], -1).astype(np.float32))

    def num_patches(self, length: int) -> int:
        """Patches of one channel with so many values; the last one may reach beyond the end."""
        return max(0, -(-(length - self.config.patch_length) // self.config.stride)) + 1

    def num_positions(self, inputs: Tensor) -> int:
        """Patches of all channels."""
        return inputs.shape[0] * inputs.shape[1]

    def _patches(self, values: Any, count: int) -> Any:
        """`(channels, length)` to `(channels, count, patch_length)`; the last value is repeated beyond the end."""
        reach = (count - 1) * self.config.stride + self.config.patch_length
        padded = np.pad(values, ((0, 0), (0, max(0, reach - values.shape[1]))), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.config.patch_length, axis=1)
        return windows[:, :: self.config.stride][:, :count]


def _normalised(values: Any) -> tuple[Any, Any]:
    """Channels with mean 0 and scale 1, and both as numbers of a size that a network can read.

    Args:
        values: `(channels, length)`.

    Returns:
        The channels, and `(channels, 2)`: the mean on a logarithmic scale with its sign, the logarithm of the scale.
    """
    # The largest floats overflow when they are squared: the largest value of each channel is taken out first
    largest = np.maximum(np.abs(values).max(1, keepdims=True), np.finfo(np.float64).tiny)
    shrunk = values / largest
    mean, scale = shrunk.mean(1, keepdims=True), shrunk.std(1, keepdims=True)
    normalised = np.where(scale > _EPS, (shrunk - mean) / np.maximum(scale, _EPS), 0.0)
    logarithm = np.log(np.maximum(scale, _EPS)) + np.log(largest)
    mean = np.sign(mean) * np.logaddexp(0, np.log(np.maximum(np.abs(mean), 1e-300)) + np.log(largest))
    return normalised, np.concatenate([mean, logarithm], 1) / 10


def load_preprocessor(options: SeriesPatchesOptions) -> SeriesPreprocessor:
    """The preprocessing of an encoder, by its config alone.

    Raises:
        ModelError: There is none, or it is that of something else.
    """
    return SeriesPreprocessor(read_config(options), options.max_positions)
