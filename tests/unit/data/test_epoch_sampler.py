"""The sampler: every index once, the same order when asked again, batches of similar length on request."""

from __future__ import annotations

import pytest

from adaptkit.data.mixture import Mixture
from adaptkit.data.sampler import EpochSampler
from tests.unit.data.numbers_source import Numbers

MIXTURE = Mixture({"a": Numbers(403)}, {"a": 1.0}, seed=3)


def test_it_gives_the_epochs_of_the_mixture():
    sampler = EpochSampler(MIXTURE.indices)
    assert list(sampler) == MIXTURE.indices(0)
    sampler.set_epoch(5)
    assert list(sampler) == list(sampler) == MIXTURE.indices(5)
    assert len(sampler) == 403


def test_grouping_keeps_the_indices_and_saves_padding():
    lengths = [i * 7919 % 403 for i in range(403)]
    sampler = EpochSampler(MIXTURE.indices, lengths=lengths, batch_size=4, group_by_length=True)
    order = list(sampler)
    assert sorted(order) == list(range(403))
    assert order == list(sampler)
    batches = [order[i : i + 4] for i in range(0, 400, 4)]
    spread = sum(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches) / len(batches)
    assert spread < 15
    longest = [max(lengths[i] for i in b) for b in batches]
    assert longest != sorted(longest)
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_grouping_needs_lengths():
    with pytest.raises(ValueError, match="needs lengths"):
        EpochSampler(MIXTURE.indices, group_by_length=True)


def test_fewer_samples_than_a_batch():
    small = Mixture({"a": Numbers(3)}, {"a": 1.0})
    sampler = EpochSampler(small.indices, lengths=[3, 1, 2], batch_size=8, group_by_length=True)
    assert sorted(sampler) == [0, 1, 2]
