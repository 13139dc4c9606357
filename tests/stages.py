"""Settings of stages for tests, which name only what they are about."""

from __future__ import annotations

from typing import Any

from adaptkit.stage import OptimizerConfig, StageConfig


def optimizer_config(**settings: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"learning_rate": 2e-5, **settings})


def stage_config(**settings: Any) -> StageConfig:
    values: dict[str, Any] = {
        "name": "align",
        "workflow": "main",
        "train": ["projector", "insertion", "ends"],
        "data": {"data": 1.0},
        "optimizer": optimizer_config(),
    }
    return StageConfig(**values | settings)
