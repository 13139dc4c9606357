"""Damaged data of every format are read or refused with a `DataError`."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.rows import RowSource
from tests.fuzz.damaging import try_damage
from tests.fuzz.formats import FORMATS, World
from tests.fuzz.mutations import mutate_bytes, mutate_value
from tests.fuzz.reading import read, write_damaged

IN_SUITE = {"hf_dataset": 80}  # the slowest to write


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.build(tmp_path_factory.mktemp("world"))


def read_damaged(world: World, name: str, in_suite: int) -> Counter[str]:
    """What became of damaged samples of a format, by kind of error."""
    outcomes: Counter[str] = Counter()

    def check(rng: random.Random) -> None:
        with tempfile.TemporaryDirectory(dir=world.folder) as work:
            outcomes[read(write_damaged(world, name, Path(work), rng), world, Path(work))] += 1

    try_damage(check, in_suite)
    return outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_samples_are_data_errors_and_nothing_else(world: World, name: str) -> None:
    outcomes = read_damaged(world, name, IN_SUITE.get(name, 150))
    print(name, outcomes.most_common())
    assert outcomes["read"] > outcomes.total() // 20
    assert len(outcomes) >= 3


def test_other_exceptions_are_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RowSource, index: int) -> Any:
        raise KeyError("'image'")

    monkeypatch.setattr(RowSource, "__getitem__", broken)
    with pytest.raises(KeyError, match="image"):
        read_damaged(world, "llava", 20)


def test_mutations_change_copies() -> None:
    rng = random.Random(0)
    value = {"a": [1, {"b": "c"}], "d": "e"}
    raw = json.dumps(value).encode()
    mutants = [mutate_value(value, rng) for _ in range(200)]
    assert json.dumps(value).encode() == raw
    assert sum(repr(mutant) != repr(value) for mutant in mutants) > 180
    assert sum(mutate_bytes(raw, rng) != raw for _ in range(200)) > 150
    assert isinstance(mutate_bytes(b"", rng), bytes)
