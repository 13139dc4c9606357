"""The encoder keeps adaptkit's contract, with every kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptkit.testing import check_encoder, check_plugin


def test_its_examples_keep_the_contract() -> None:
    results = check_plugin("adaptkit-whisper", fresh_processes=False)
    assert not [result for result in results if result.outcome == "failed"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("generation", {"pool": 2, "pool_before_norm": True, "hide_padding": True, "trim": True}),
        ("encoder", {"max_windows": 1, "feature_layer": 1, "dtype": "float16"}),
    ],
)
def test_its_options_keep_the_contract_too(
    checkpoints: dict[str, Path], kind: str, options: dict[str, Any], noise: Callable[..., Any]
) -> None:
    check_encoder("whisper", {"path": str(checkpoints[kind]), **options}, noise(0.3))
