"""Damaged grounding datasets are converted or refused with a `DataError`; the command itself tries many more."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from tests.fuzz import grounding as fuzz_grounding
from tests.fuzz.grounding import KINDS, fuzz, main


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_datasets_are_data_errors_and_nothing_else(kind: str) -> None:
    outcomes = fuzz(kind, range(120), seed=0)
    assert [text for _, text in outcomes.failures] == []
    assert min(outcomes.converted, outcomes.refused) > 20


def test_a_failure_is_found_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("id")

    monkeypatch.setattr(fuzz_grounding, "convert_flickr30k", broken)
    result = CliRunner().invoke(main, ["--samples", "2", "--seed", "5", "--kind", "flickr30k"])
    assert result.exit_code == 1
    assert "KeyError" in result.output
    again = ["--kind", "flickr30k", "--seed", "5", "--only", "1"]
    assert CliRunner().invoke(main, again).exit_code == 1
    monkeypatch.undo()
    assert CliRunner().invoke(main, again).exit_code == 0


def test_what_is_no_box_in_the_square_is_a_failure() -> None:
    row = {"conversations": [{"value": "where ?"}, {"value": "[0.1,0.2,1.3,0.4]"}]}
    with pytest.raises(AssertionError, match=r"1\.3"):
        fuzz_grounding._check([row])
