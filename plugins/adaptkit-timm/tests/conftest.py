"""Tiny backbones of five families, as timm itself writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

DATA = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear", "crop_pct": 0.8}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"model_name": "test_vit", "img_size": 64, "depth": 3},
    "reg": {"model_name": "vit_tiny_patch16_224", "img_size": 48, "depth": 2, "embed_dim": 24, "reg_tokens": 2},
    "convnext": {"model_name": "test_convnext"},
    "swin": {
        "model_name": "swin_tiny_patch4_window7_224",
        "img_size": 56,
        "embed_dim": 8,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 2),
    },
    "resnet": {"model_name": "test_resnet"},
    "efficientnet": {"model_name": "test_efficientnet"},
}


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    """A model of each kind, with a classifier, as timm builds it."""
    made = {}
    for number, (kind, arguments) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        made[kind] = timm.create_model(**arguments, num_classes=5).eval()
    return made


@pytest.fixture(scope="session")
def folders(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind, as timm writes it."""
    root = tmp_path_factory.mktemp("timm")
    for kind, model in models.items():
        save_for_hf(model, str(root / kind), safe_serialization=True, data_config=DATA)
    return {kind: root / kind for kind in models}
