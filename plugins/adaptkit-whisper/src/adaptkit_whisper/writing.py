"""Whisper encoders in memory, written as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

from adaptkit_whisper.preprocessing import TransformersLogMel, WhisperPreprocessor

OPENAI_FILE = "encoder.pt"
NO_DECODER = {
    "decoder_layers": 0,
    "decoder_attention_heads": 1,
    "decoder_ffn_dim": 1,
    "max_target_positions": 1,
    "vocab_size": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "begin_suppress_tokens": None,
}


def write_checkpoint(model: nn.Module, preprocessor: WhisperPreprocessor, directory: Path) -> Path:
    """Write an encoder in memory, each backend in its own layout, and return the path that its options name."""
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(preprocessor.log_mel, TransformersLogMel):
        write_stock(model, directory)
        preprocessor.log_mel.save_pretrained(directory)
        return directory
    encoder: Any = model
    sizes = {
        "num_mel_bins": encoder.conv1.in_channels,
        "max_source_positions": encoder.positional_embedding.shape[0],
        "d_model": encoder.conv1.out_channels,
        "encoder_attention_heads": encoder.blocks[0].attn.n_head,
        "encoder_layers": len(encoder.blocks),
    }
    return write_openai(encoder, sizes, directory)


def write_stock(encoder: Any, directory: Path) -> None:
    """As a `WhisperModel` without decoder layers, which `AutoModel` reads whole."""
    config = WhisperConfig(**{**encoder.config.to_dict(), **NO_DECODER, "dtype": encoder.dtype})
    with torch.device("meta"):
        whole = WhisperModel(config)
    whole.encoder = encoder
    whole.decoder.to_empty(device="cpu")
    for parameter in whole.decoder.parameters():
        nn.init.zeros_(parameter)
    whole.decoder.to(encoder.dtype)
    whole.save_pretrained(directory)


def write_openai(encoder: nn.Module, sizes: dict[str, int], directory: Path) -> Path:
    dims = {
        "n_mels": sizes["num_mel_bins"],
        "n_audio_ctx": sizes["max_source_positions"],
        "n_audio_state": sizes["d_model"],
        "n_audio_head": sizes["encoder_attention_heads"],
        "n_audio_layer": sizes["encoder_layers"],
    }
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    torch.save({"dims": dims, "model_state_dict": state}, directory / OPENAI_FILE)
    return directory / OPENAI_FILE
