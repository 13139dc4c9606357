"""Mixtures: what an epoch draws, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from adaptkit.data.mixture import Mixture
from adaptkit.errors import DataError
from tests.unit.data.numbers_source import Numbers


def test_weights_are_epochs_of_a_source():
    mixture = Mixture({"a": Numbers(10), "b": Numbers(7), "c": Numbers(4)}, {"a": 1.0, "b": 2.0, "c": 0.5})
    counts = Counter(mixture.indices(0))
    assert [counts[i] for i in range(10)] == [1] * 10
    assert [counts[i] for i in range(10, 17)] == [2] * 7
    assert sum(counts[i] for i in range(17, 21)) == 2
    assert len(mixture.indices(0)) == mixture.epoch_size == 26
    assert len(mixture) == 21


def test_parts_of_a_source_take_turns_over_epochs():
    mixture = Mixture({"a": Numbers(10)}, {"a": 0.3})
    drawn = Counter(i for epoch in range(10) for i in mixture.indices(epoch))
    assert drawn == dict.fromkeys(range(10), 3)


def test_the_order_depends_on_seed_and_epoch_alone():
    def build(seed: int) -> Mixture:
        return Mixture({"a": Numbers(50), "b": Numbers(50)}, {"a": 1.0, "b": 1.0}, seed)

    late = build(1).indices(3)
    mixture = build(1)
    orders = [mixture.indices(epoch) for epoch in range(4)]
    assert orders[3] == late
    assert len({tuple(order) for order in orders}) == 4
    assert build(2).indices(0) != orders[0]
    assert sorted(late) == list(range(100))


def test_the_order_is_the_same_on_every_machine():
    assert Mixture({"a": Numbers(8)}, {"a": 1.0}, seed=7).indices(2) == [1, 5, 0, 2, 6, 3, 7, 4]


def test_indices_lead_to_samples():
    mixture = Mixture({"a": Numbers(3), "unused": Numbers(9), "b": Numbers(2)}, {"b": 1.0, "a": 1.0})
    assert [mixture.locate(i) for i in range(5)] == [("b", 0), ("b", 1), ("a", 0), ("a", 1), ("a", 2)]
    assert [mixture[i].id for i in range(5)] == ["0", "1", "0", "1", "2"]
    with pytest.raises(IndexError):
        mixture[5]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "the mixture is empty"),
        ({"aa": 1.0}, "no data source in the mixture named 'aa'. Did you mean 'a'"),
        ({"a": 0.0}, "has weight 0.0"),
        ({"a": -1.0}, "has weight -1.0"),
        ({"a": float("nan")}, "has weight nan"),
        ({"a": 0.01}, "draws none of its 10 samples"),
        ({"none": 1.0}, "'none' is empty"),
    ],
)
def test_bad_mixtures_are_data_errors(weights, said):
    with pytest.raises(DataError, match=said):
        Mixture({"a": Numbers(10), "none": Numbers(0)}, weights)
