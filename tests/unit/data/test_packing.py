"""Packs: every sample once an epoch, rows no longer than they may be, the same again after a restart."""

import numpy as np
import pytest
import torch

from adaptkit.data.collator import PackedCollator
from adaptkit.data.packing import PackedDataset, PackSampler


def lengths_of(count, seed=0):
    return np.random.RandomState(seed).geometric(0.02, count).clip(1, 400).tolist()


def shuffled(count):
    return lambda epoch: np.random.RandomState(epoch).permutation(count).tolist()


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_every_sample_is_in_one_pack_of_each_epoch(num_epochs):
    sampler = PackSampler(shuffled(5000), lengths=lengths_of(5000), row_length=512, num_epochs=num_epochs)
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        packs = list(sampler)
        assert sorted(index for pack in packs for index in pack) == list(range(5000))
        assert len(packs) == len(sampler)


def test_rows_are_full_and_not_over():
    lengths = lengths_of(5000)
    sampler = PackSampler(shuffled(5000), lengths=lengths, row_length=512)
    totals = [sum(lengths[i] for i in pack) for pack in sampler]
    assert max(totals) <= 512
    assert len(totals) <= 1.02 * sum(lengths) / 512  # next to nothing is lost


def test_a_sample_longer_than_a_row_is_alone():
    sampler = PackSampler(lambda epoch: [0, 1, 2], lengths=[10, 700, 20], row_length=512)
    assert sorted(sampler) == [(0, 2), (1,)]


def test_the_order_depends_on_seed_and_epoch_alone():
    arguments = {"lengths": lengths_of(300), "row_length": 512, "num_epochs": 2}
    first, again = (PackSampler(shuffled(300), seed=4, **arguments) for _ in range(2))
    other = PackSampler(shuffled(300), seed=5, **arguments)
    epochs = []
    for epoch in (0, 1):
        for sampler in (first, again, other):
            sampler.set_epoch(epoch)
        epochs.append(list(first))
        assert list(again) == epochs[-1]
        assert list(other) != epochs[-1]
    assert epochs[0] != epochs[1]


def test_epochs_that_need_fewer_packs_split_some():
    """One epoch draws long samples, the next short ones, as weights below 1 do."""
    sampler = PackSampler(
        lambda epoch: [[0, 1, 2, 3], [4, 5, 6, 7]][epoch], lengths=[400] * 4 + [10] * 4, row_length=512, num_epochs=2
    )
    assert len(sampler) == 4
    sampler.set_epoch(1)
    assert sorted(sampler) == [(4,), (5,), (6,), (7,)]


def test_the_number_of_epochs_follows_from_the_packs_that_are_drawn():
    def indices(epoch):
        return [[4, 5, 6, 7], [0, 1, 2, 3]][min(epoch, 1)]

    lengths = [400] * 4 + [10] * 4
    assert len(PackSampler(indices, lengths=lengths, row_length=512, num_epochs=None, num_draws=1)) == 1
    assert len(PackSampler(indices, lengths=lengths, row_length=512, num_epochs=None, num_draws=2)) == 4


def item(ids, media=()):
    return {"input_ids": np.array(ids), "labels": np.array(ids), "media": list(media), "length": len(ids)}


def test_a_batch_is_one_row_in_order():
    dataset = PackedDataset([item([1, 2, 3]), item([4, 5], [("item", 7)]), item([6], [("item", 8), ("item", 9)])])
    collate = PackedCollator(0, lambda modality, sources: torch.tensor(sources))
    batch = collate([dataset[1, 0], dataset[(2,)]])
    assert batch["input_ids"].tolist() == [[4, 5, 1, 2, 3, 6]]
    assert batch["labels"].tolist() == [[-100, 5, -100, 2, 3, -100]]
    assert batch["segment_lengths"] == [2, 3, 1]
    assert batch["features"]["item"].tolist() == [7, 8, 9]
