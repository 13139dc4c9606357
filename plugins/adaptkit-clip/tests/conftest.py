"""Tiny checkpoints of every accepted kind, written once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2Config,
    Siglip2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 6,
    "initializer_range": 0.2,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
DINO: dict[str, Any] = {
    "mlp_ratio": 2,
    "num_register_tokens": 2,
    **{key: value for key, value in VISION.items() if key != "intermediate_size"},
}
NAFLEX: dict[str, Any] = {"num_patches": 16, **{key: value for key, value in VISION.items() if key != "image_size"}}
KINDS = (
    "clip",
    "clip_vision_model",
    "siglip",
    "siglip_vision_model",
    "siglip2",
    "siglip2_vision_model",
    "dinov2",
    "dinov2_with_registers",
)


def build_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "clip":
        return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)).eval()
    if kind == "siglip":
        return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)).eval()
    if kind == "siglip2":
        return Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=NAFLEX)).eval()
    if kind == "siglip2_vision_model":
        return Siglip2VisionModel(Siglip2VisionConfig(**NAFLEX)).eval()
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**{k: v for k, v in DINO.items() if k != "num_register_tokens"})).eval()
    if kind == "dinov2_with_registers":
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINO)).eval()
    if kind == "siglip_vision_model":
        return SiglipVisionModel(SiglipVisionConfig(**VISION)).eval()
    return CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind of checkpoint, without a preprocessor_config.json."""
    root = tmp_path_factory.mktemp("checkpoints")
    for kind in KINDS:
        build_model(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Noise of an odd shape: 31 wide, 20 high."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8))
