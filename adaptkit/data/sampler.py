"""The order in which training visits a mixture, the same however often it is stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, Sampler

_BATCHES_PER_BUCKET = 50


class EpochSampler(Sampler[int]):
    """Indices of one epoch, as a function of the seed and the epoch alone.

    Args:
        indices: Samples of an epoch in order, `mixture.order`; every epoch has the same number.
        seed: Of the order of grouped batches.
        lengths: Length of each sample, needed to group them.
        batch_size: Samples of one batch over all devices, the unit of grouping.
        group_by_length: Make batches of samples of similar length, which saves padding. The order of the
            batches stays random.
    """

    def __init__(
        self,
        indices: Callable[[int], Sequence[int] | NDArray[np.int64]],
        *,
        seed: int = 0,
        lengths: Sequence[int] | NDArray[np.int64] | None = None,
        batch_size: int = 1,
        group_by_length: bool = False,
    ) -> None:
        if group_by_length and lengths is None:
            raise ValueError("grouping by length needs lengths")
        self._indices = indices
        self._seed = seed
        self._lengths = lengths if group_by_length else None
        self._batch_size = batch_size
        self._length = len(indices(0))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        order = np.asarray(self._indices(self.epoch))
        if self._lengths is not None:
            order = _group_by_length(order, self._lengths, self._batch_size, self._seed + self.epoch)
        return map(int, order)


class StepBatches(BatchSampler):
    """The forward passes of optimiser steps: each step's samples in batches over all devices, the last one smaller.

    All steps but the last of an epoch have the same number of samples and of batches, whatever the size of a batch.

    Args:
        sampler: The order of an epoch.
        batch_size: Samples of a batch at most.
        step_size: Samples of an optimiser step.
    """

    def __init__(self, sampler: Sampler[Any], batch_size: int, step_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self._step_size = step_size

    def __len__(self) -> int:
        steps, rest = divmod(len(self.sampler), self._step_size)  # type: ignore[arg-type]
        return steps * ceil(self._step_size / self.batch_size) + ceil(rest / self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        samples = iter(self.sampler)
        while step := list(islice(samples, self._step_size)):
            yield from (step[i : i + self.batch_size] for i in range(0, len(step), self.batch_size))


def _group_by_length(
    order: NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64], batch_size: int, seed: int
) -> NDArray[np.int64]:
    """Sort by length within buckets of many batches, then shuffle the batches but for a partial last one."""
    bucket_size = batch_size * _BATCHES_PER_BUCKET
    buckets = (order[i : i + bucket_size].tolist() for i in range(0, len(order), bucket_size))
    by_length = chain.from_iterable(sorted(bucket, key=lengths.__getitem__) for bucket in buckets)
    grouped = np.fromiter(by_length, np.int64, len(order))
    num_batches = len(order) // batch_size
    batches, partial = np.split(grouped, [num_batches * batch_size])
    shuffled = np.random.RandomState(seed % 2**32).permutation(num_batches)
    return np.concatenate([batches.reshape(num_batches, batch_size)[shuffled].ravel(), partial])
