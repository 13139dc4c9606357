"""Random Whisper encoders: tiny stand-ins, and new ones to train."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as StockEncoder

from adaptkit.errors import ModelError, unknown_name
from adaptkit_whisper.loading import default_extractor, load_preprocessor
from adaptkit_whisper.options import WhisperOptions
from adaptkit_whisper.writing import NO_DECODER, write_openai, write_stock

EXTRACTOR_SETTINGS = ("sampling_rate", "hop_length", "n_fft", "chunk_length")
_STAND_IN_POSITIONS = 50


def create(config: dict[str, Any], directory: Path) -> WhisperOptions:
    """Write a randomly initialised encoder in the stock layout.

    Args:
        config: Values of `WhisperConfig`, those of the decoder aside; of the feature extractor (`sampling_rate`,
            `hop_length`, `n_fft`, `chunk_length`); and `seed`.
        directory: Where to write; it is made.

    Returns:
        Options that build it.

    Raises:
        ModelError: A key is unknown, or the values make no encoder.
    """
    known = WhisperConfig().to_dict().keys() | set(EXTRACTOR_SETTINGS) | {"seed"}
    for key in config:
        if key not in known:
            raise ModelError(unknown_name("setting of a Whisper encoder", key, sorted(known)))
    settings = {key: config[key] for key in EXTRACTOR_SETTINGS if key in config}
    values = {key: value for key, value in config.items() if key not in {*settings, "seed"}}
    try:
        model_config = WhisperConfig(**{**values, **NO_DECODER})
        with warnings.catch_warnings(action="error", category=UserWarning):  # of mel filters that let nothing through
            extractor = default_extractor(model_config, **settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(config.get("seed", 0)))
            encoder = StockEncoder(model_config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, StrictDataclassError, UserWarning) as error:
        raise ModelError(f"these settings make no Whisper encoder: {' '.join(str(error).split())}") from error
    write_stock(encoder, directory)
    extractor.save_pretrained(directory)
    return WhisperOptions(path=str(directory))


def write_stand_in(options: WhisperOptions, directory: Path) -> WhisperOptions:
    """Write a tiny random model, whose window is about a second.

    Returns:
        The same options, naming the stand-in; recordings may be as long as with the real one.
    """
    share, layer = options.states_per_feature, options.feature_layer
    positions = -(-_STAND_IN_POSITIONS // share) * share
    sizes = {
        "d_model": 32,
        "encoder_layers": max(2, layer if layer >= 0 else -layer - 1),
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "max_source_positions": positions,
        "num_mel_bins": _mel_bins(options),
    }
    path = directory
    if options.backend == "openai-whisper":
        directory.mkdir(parents=True, exist_ok=True)
        path = write_openai(_random_openai(sizes), sizes, directory)
    else:
        create(sizes, directory)
    return options.model_copy(
        update={"path": str(path), "revision": None, "max_windows": options.max_windows * -(-1500 // positions)}
    )


def _random_openai(sizes: dict[str, int]) -> nn.Module:
    from whisper.model import AudioEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: nn.Module = AudioEncoder(
            sizes["num_mel_bins"],
            sizes["max_source_positions"],
            sizes["d_model"],
            sizes["encoder_attention_heads"],
            sizes["encoder_layers"],
        )
    return encoder


def _mel_bins(options: WhisperOptions) -> int:
    """Those of the checkpoint where it is here; large-v3 and its kin have 128, the others 80."""
    try:
        return load_preprocessor(options).windows.mel_bins
    except ModelError:
        return 128 if any(word in options.path for word in ("large-v3", "turbo")) else 80
