"""The encoder keeps adaptkit's contract, with every kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adaptkit_whisper.examples import make_examples

from adaptkit.testing import check_encoder


@pytest.mark.parametrize("number", range(3))
def test_its_examples_keep_the_contract(number: int, tmp_path: Path) -> None:
    example = make_examples(tmp_path)[number]
    first, *others = example.items
    check_encoder(
        "whisper",
        example.options,
        first,
        other_items=others,
        bad_items=example.bad_items,
        variants=example.variants,
    )


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
