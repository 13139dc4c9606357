"""Modality and encoder keep adaptkit's contract."""

from __future__ import annotations

from adaptkit.testing import check_plugin


def test_all_its_examples_keep_the_contract() -> None:
    results = check_plugin("adaptkit-timeseries", fresh_processes=False)
    assert {result.kind for result in results} == {"plugin", "modality", "encoder"}
    assert not [result for result in results if result.outcome == "failed"]
