"""Tiny checkpoints, written once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from adaptkit_audio.clip import AudioClip
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel

SIZES: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "max_source_positions": 24,
    "num_mel_bins": 80,
    "init_std": 0.2,
}
DECODER: dict[str, Any] = {
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "max_target_positions": 8,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
WINDOW_S = 0.48


def build_config(**changes: Any) -> WhisperConfig:
    return WhisperConfig(**{**SIZES, **DECODER, **changes})


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole model, one with its LM head, the encoder alone, and a file of the openai-whisper package."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(build_config())
    model.save_pretrained(root / "generation")
    model.model.save_pretrained(root / "model")
    model.model.encoder.save_pretrained(root / "encoder")
    return {name: root / name for name in ("generation", "model", "encoder")}


@pytest.fixture(scope="session")
def stock(checkpoints: dict[str, Path]) -> Any:
    """transformers' own encoder."""
    return WhisperModel.from_pretrained(checkpoints["model"]).eval().encoder


@pytest.fixture(scope="session")
def noise() -> Callable[..., AudioClip]:
    """Makes recordings of noise that swells."""

    def make(seconds: float, rate: int = 16000, seed: int = 0) -> AudioClip:
        count = round(seconds * rate)
        samples = np.random.default_rng(seed).uniform(-0.3, 0.3, count) * np.linspace(0.2, 1, count)
        return AudioClip(samples.astype(np.float32), rate)

    return make
