"""Damaged data of every format are read or refused with a `DataError`; the command itself tries many more."""

from __future__ import annotations

import json
import random
import tempfile
from typing import Any

import pytest
from click.testing import CliRunner

from adaptkit.data.formats import building as formats
from adaptkit.data.rows import RowSource
from adaptkit.testing.mutations import mutate_bytes, mutate_value
from tests.fuzz.data import fuzz, main
from tests.fuzz.formats import FORMATS

NUM_SAMPLES = {"hf_dataset": 80}  # the slowest to write


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_samples_are_data_errors_and_nothing_else(name):
    num_samples = NUM_SAMPLES.get(name, 150)
    outcomes = fuzz(name, range(num_samples), seed=0)
    assert [text for _, text in outcomes.failures] == []
    assert outcomes.read > num_samples // 10
    assert len(outcomes.refused) >= 3
    assert outcomes.read + outcomes.refused.total() == num_samples


def test_samples_depend_on_seed_and_number_alone():
    whole = fuzz("llava", range(20), seed=3)
    parts = [fuzz("llava", [number], seed=3) for number in range(20)]
    assert sum(part.read for part in parts) == whole.read
    assert sum((part.refused for part in parts), start=type(whole.refused)()) == whole.refused


def test_other_exceptions_are_found_and_can_be_tried_again(monkeypatch):
    def broken(self: RowSource, index: int) -> Any:
        raise KeyError("'image'")

    monkeypatch.setattr(formats.RowSource, "__getitem__", broken)
    result = CliRunner().invoke(main, ["--samples", "3", "--seed", "5", "--format", "llava"])
    assert result.exit_code == 1
    assert "KeyError" in result.output
    number = result.output.partition("--only ")[2].split()[0]
    again = CliRunner().invoke(main, ["--seed", "5", "--format", "llava", "--only", number])
    assert again.exit_code == 1
    monkeypatch.undo()
    assert CliRunner().invoke(main, ["--seed", "5", "--format", "llava", "--only", number]).exit_code == 0


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fuzz("webdataset", range(3), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_mutations_change_copies():
    rng = random.Random(0)
    value = {"a": [1, {"b": "c"}], "d": "e"}
    raw = json.dumps(value).encode()
    mutants = [mutate_value(value, rng) for _ in range(200)]
    assert json.dumps(value).encode() == raw
    assert sum(repr(mutant) != repr(value) for mutant in mutants) > 180
    assert sum(mutate_bytes(raw, rng) != raw for _ in range(200)) > 150
    assert isinstance(mutate_bytes(b"", rng), bytes)
