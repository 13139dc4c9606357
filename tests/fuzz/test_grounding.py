"""Damaged grounding datasets are converted or refused with a `DataError`."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from adaptkit.errors import DataError
from tests.fuzz.damaging import try_damage
from tests.fuzz.grounding import KINDS, check_boxes


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_datasets_are_data_errors_and_nothing_else(kind: str) -> None:
    outcomes: Counter[str] = Counter()

    def check(rng: random.Random) -> None:
        with TemporaryDirectory() as folder:
            output = Path(folder) / "output.json"
            try:
                KINDS[kind](Path(folder), rng)(output)
            except DataError:
                outcomes["refused"] += 1
                return
            check_boxes(json.loads(output.read_text(encoding="utf-8")))
            outcomes["converted"] += 1

    try_damage(check, in_suite=120)
    print(kind, outcomes.most_common())
    assert min(outcomes["converted"], outcomes["refused"]) > outcomes.total() // 20


def test_a_box_outside_the_square_is_a_failure() -> None:
    row = {"conversations": [{"value": "where ?"}, {"value": "[0.1,0.2,1.3,0.4]"}]}
    with pytest.raises(AssertionError, match=r"1\.3"):
        check_boxes([row])
