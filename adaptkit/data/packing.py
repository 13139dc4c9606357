"""Conversations put together into rows without padding, in an order that a resumed run finds again."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from adaptkit.data.dataset import Item

_WINDOW = 2048
"""Conversations among which those that fill a row are sought: a draw of the epoch's order large enough to fit well."""

Pack = tuple[int, ...]


class PackSampler(Sampler[Pack]):
    """The packs of one epoch, each the indices of conversations that share a row.

    Every sample of the epoch is in one pack. The packs are a function of the seed and the epoch alone, so nothing of
    them needs to be saved. All epochs have the same number: those that would need fewer split some.

    Args:
        indices: Samples of an epoch in order, `mixture.order`.
        lengths: Length of each sample; where they are estimates, rows are as full as these are right.
        row_length: Positions of a row. A longer sample is alone in its own.
        num_epochs: How many epochs are trained; None: as many as `num_draws` packs take.
        num_draws: Packs trained on in all, where `num_epochs` is None.
        seed: Of the order of packs.
    """

    def __init__(
        self,
        indices: Callable[[int], Sequence[int] | NDArray[np.int64]],
        *,
        lengths: Sequence[int] | NDArray[np.int64],
        row_length: int,
        num_epochs: float | None = 1,
        num_draws: int = 0,
        seed: int = 0,
    ) -> None:
        self._indices = indices
        self._lengths = lengths
        self._row_length = row_length
        self._seed = seed
        first = len(self._pack(0))
        epochs = math.ceil(num_draws / first if num_epochs is None else num_epochs)
        self._length = max([first, *(len(self._pack(epoch)) for epoch in range(1, epochs))])
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Packs of an epoch."""
        return self._length

    def __iter__(self) -> Iterator[Pack]:
        packs = self._pack(self.epoch)
        while len(packs) < self._length:
            fullest = max(range(len(packs)), key=lambda i: len(packs[i]))
            pack = packs[fullest]
            packs[fullest : fullest + 1] = [pack[: len(pack) // 2], pack[len(pack) // 2 :]]
        order = np.random.RandomState((self._seed + self.epoch) % 2**32).permutation(len(packs))
        return iter([packs[i] for i in order])

    def _pack(self, epoch: int) -> list[Pack]:
        order = np.asarray(self._indices(epoch))
        windows = (order[i : i + _WINDOW].tolist() for i in range(0, len(order), _WINDOW))
        return [pack for window in windows for pack in self._pack_window(window)]

    def _pack_window(self, window: Sequence[int]) -> list[Pack]:
        """Longest first, each into the row that it fills best."""
        rows: list[list[int]] = []
        free: list[tuple[int, int]] = []  # positions left in a row, and its number; sorted
        for place in sorted(range(len(window)), key=lambda i: -self._lengths[window[i]]):
            length = self._lengths[window[place]]
            found = bisect_left(free, (length, -1))
            left, row = free.pop(found) if found < len(free) else (self._row_length, len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(place)
            if left > length:
                insort(free, (left - length, row))
        return [tuple(window[place] for place in sorted(row)) for row in rows]


class PackedDataset(Dataset[list[Item]]):
    """A dataset of conversations, read a pack at a time."""

    def __init__(self, dataset: Dataset[Item]) -> None:
        self.dataset = dataset

    def __getitem__(self, pack: Pack) -> list[Item]:
        """The items of a pack."""
        return [self.dataset[index] for index in pack]


def unpacked(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """The items of a batch of packs, which become one row."""
    return [item for row in rows for item in row]
