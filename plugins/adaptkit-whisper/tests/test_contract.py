"""The encoder keeps adaptkit's contract, with every kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptkit.testing import check_encoder


@pytest.mark.parametrize("kind", ["generation", "encoder"])
def test_whisper_keeps_the_contract_of_an_encoder(
    checkpoints: dict[str, Path], kind: str, noise: Callable[..., Any]
) -> None:
    path = str(checkpoints[kind])
    variants = [
        {"path": path, "feature_layer": -2},
        {"path": path, "pool": 2},
        {"path": path, "pool": 2, "pool_before_norm": True},
        {"path": path, "stack": 2},
        {"path": path, "trim": True},
        {"path": path, "dtype": "bfloat16"},
    ]
    check_encoder("whisper", {"path": path}, noise(0.3), variants=variants)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"trim": True}, 0.3),
        ({"trim": True}, 1.1),
        ({"stack": 4}, 1.1),
        ({"pool": 3, "trim": True}, 0.2),
        ({"pool": 2, "pool_before_norm": True, "hide_padding": True, "trim": True}, 0.3),
        ({"max_windows": 1, "feature_layer": 1}, 0.4),
        ({"dtype": "float16"}, 0.4),
    ],
)
def test_its_options_keep_the_contract_too(
    checkpoints: dict[str, Path], options: dict[str, Any], seconds: float, noise: Callable[..., Any]
) -> None:
    check_encoder("whisper", {"path": str(checkpoints["model"]), **options}, noise(seconds))
