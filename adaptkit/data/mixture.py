"""Several data sources as one, each drawn from as often as its weight says."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import DataSource, Sample, is_stream


class Mixture:
    """Data sources joined end to end, and the order in which each epoch visits them.

    A source of weight 1 gives every sample once an epoch, of weight 0.5 half of them (the other half the next
    epoch), of weight 2 every sample twice. The order depends on `seed` and the epoch alone: not on processes,
    workers, or what was drawn before. Samples of a stream come in its own order, among shuffled ones of the others.

    Args:
        weights: Epochs of each source per epoch of the mixture; sources that it does not name are skipped.

    Raises:
        DataError: A weight names no source or is not positive, or a source or the mixture is empty.
    """

    def __init__(self, sources: Mapping[str, DataSource], weights: Mapping[str, float], seed: int = 0) -> None:
        if not weights:
            raise DataError("the mixture is empty: name at least one data source and its weight")
        self.seed = seed
        self.sources: dict[str, DataSource] = {}
        self._draws: list[int] = []
        for name, weight in weights.items():
            if name not in sources:
                raise DataError(unknown_name("data source in the mixture", name, sources))
            self.sources[name] = sources[name]
            self._draws.append(_num_draws(name, len(sources[name]), weight))
        self._starts = [0, *accumulate(len(source) for source in self.sources.values())]

    def __len__(self) -> int:
        """Number of samples of all sources, each counted once."""
        return self._starts[-1]

    @property
    def starts(self) -> list[int]:
        """Index of the first sample of each source."""
        return self._starts[:-1]

    @property
    def epoch_size(self) -> int:
        """Number of samples of one epoch, the same for every epoch."""
        return sum(self._draws)

    def locate(self, index: int) -> tuple[str, int]:
        """Name of the source of a sample, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return list(self.sources)[number], index - self._starts[number]

    def __getitem__(self, index: int) -> Sample:
        name, local = self.locate(index)
        return self.sources[name][local]

    def indices(self, epoch: int) -> list[int]:
        """Samples of an epoch in order, as indices of this mixture."""
        result: list[int] = self.order(epoch).tolist()
        return result

    def order(self, epoch: int) -> NDArray[np.int64]:
        """As `indices`, in eight bytes a sample."""
        drawn = [
            start
            + _draw(count, len(source), epoch, None if is_stream(source) else (self.seed, zlib.crc32(name.encode())))
            for (name, source), start, count in zip(self.sources.items(), self._starts, self._draws)
        ]
        order = np.concatenate(drawn)
        shuffled = order[_permutation(len(order), (self.seed, epoch))]
        for source, start, own in zip(self.sources.values(), self._starts, drawn):
            if is_stream(source):
                shuffled[(shuffled >= start) & (shuffled < start + len(source))] = own
        return shuffled


def _num_draws(name: str, length: int, weight: float) -> int:
    if not weight > 0:
        raise DataError(f"the data source {name!r} has weight {weight}: give a positive weight, or leave it out")
    if not length:
        raise DataError(f"the data source {name!r} is empty")
    count = round(weight * length)
    if not count:
        raise DataError(f"weight {weight} of the data source {name!r} draws none of its {length} samples")
    return count


def _draw(count: int, length: int, epoch: int, seed: tuple[int, int] | None) -> NDArray[np.int64]:
    """The epoch's `count` entries of an endless row of permutations, so that no sample waits for long.

    Without a seed each of them is the order itself.
    """
    first, last = epoch * count, (epoch + 1) * count
    if seed is None:
        return np.arange(first, last) % length
    rounds = range(first // length, -(-last // length))
    endless = np.concatenate([_permutation(length, (*seed, number)) for number in rounds])
    offset = first - rounds.start * length
    return endless[offset : offset + count]


def _permutation(length: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    # The legacy generator's stream is frozen: the same order under every version of numpy.
    return np.random.RandomState([number % 2**32 for number in seed]).permutation(length)
