"""Tiny checkpoints as open_clip itself writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

TEXT = {"context_length": 4, "vocab_size": 12, "width": 8, "heads": 1, "layers": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 48, "patch_size": 12, "width": 16, "head_width": 8, "layers": 3},
        "text_cfg": TEXT,
    },
    "coca_like": {
        "embed_dim": 8,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 48,
            "patch_size": 16,
            "width": 16,
            "head_width": 8,
            "layers": 2,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 5,
        },
        "text_cfg": TEXT,
    },
    "resnet": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 64, "width": 16, "head_width": 64, "layers": [1, 1, 1, 1]},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 8,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": TEXT,
    },
}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "resize_mode": "squash"}


def _whole_model(kind: str) -> Any:
    torch.manual_seed(0)
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIGS[kind].items()}
    return open_clip.CLIP(**config).eval()


@pytest.fixture(scope="session")
def whole_models() -> dict[str, Any]:
    """Both towers of each kind, as open_clip builds them."""
    return {kind: _whole_model(kind) for kind in CONFIGS}


@pytest.fixture(scope="session")
def folders(whole_models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind, with open_clip's configuration and whole weights."""
    root = tmp_path_factory.mktemp("open_clip")
    for kind, config in CONFIGS.items():
        (root / kind).mkdir()
        written = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
        (root / kind / "open_clip_config.json").write_text(json.dumps(written))
        save_file(whole_models[kind].state_dict(), root / kind / "open_clip_model.safetensors")
    return {kind: root / kind for kind in CONFIGS}
