"""`export_speech`: a workflow with a Whisper encoder as a stock Qwen2-Audio or Voxtral."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
)

from adaptkit.export.output import ExportReport
from adaptkit.export.speech_compatibility import TITLES, speech_problems
from adaptkit.export.speech_processor import write_qwen2_processor, write_voxtral_tokenizer
from adaptkit.export.stock import StockFormat, export_stock, save_stock, stock_decoder
from adaptkit.export.verification import Medium
from adaptkit.export.vocabulary import Placeholder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.portable_config import portable_text_config
from adaptkit.model.processor import AdaptkitProcessor

WHISPER_SIZES = {
    "num_mel_bins": "num_mel_bins",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
    "d_model": "hidden_size",
    "activation_function": "activation_function",
    "max_source_positions": "max_source_positions",
}
"""Names in Whisper's config, which are Qwen2-Audio's, and in Voxtral's."""

_LLAMA_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "head_dim"),
    *("max_position_embeddings", "rms_norm_eps", "use_cache", "rope_theta"),
)


def export_speech(
    model: AdaptkitForConditionalGeneration,
    processor: AdaptkitProcessor | None,
    directory: str | Path,
    target: str,
    *,
    merge: bool = False,
    dtype: torch.dtype | None = None,
) -> ExportReport:
    """Write a workflow as a stock speech model, which transformers and others read without adaptkit.

    What was written is read back and compared, as `export_llava` does it.

    Args:
        model: A workflow for which `speech_problems` finds nothing.
        processor: Its processor, to write a `Qwen2AudioProcessor`, or, for Voxtral, whose own processor belongs to one
            tokenizer, the tokenizer and the feature extractor; without it only the model is written.
        directory: Where to write; it must not hold anything yet.
        target: `qwen2-audio` or `voxtral`.
        merge: Whether to fold low-rank differences into the weights, on copies.
        dtype: Of the written weights; the base's where not given.

    Raises:
        ModelError: The workflow has no stock equal, or what was written does not compute the same.
    """
    problems = speech_problems(model, target, merge=merge)
    return export_stock(SPEECH_MODELS[target], problems, model, processor, Path(directory), merge=merge, dtype=dtype)


# -- the models ------------------------------------------------------------------------------------------------------


def _write_qwen2(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, dtype: torch.dtype, folder: Path
) -> None:
    (encoder,), (projector,) = ours.encoders.values(), ours.projectors.values()
    decoder = stock_decoder(ours, placeholder, may_tie=False)
    whisper = cast(Any, encoder).model
    audio = Qwen2AudioEncoderConfig(**{name: getattr(whisper.config, name) for name in WHISPER_SIZES})
    config = Qwen2AudioConfig(
        audio_config=audio.to_dict(), text_config=decoder.text_config, audio_token_index=placeholder.token_id
    )
    with torch.device("meta"):
        stock = Qwen2AudioForConditionalGeneration(config)
    stock.model.audio_tower.load_state_dict(whisper.state_dict(), assign=True)
    stock.model.multi_modal_projector.linear = projector
    save_stock(stock, ours, decoder, placeholder, dtype, folder)


def _write_voxtral(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, dtype: torch.dtype, folder: Path
) -> None:
    (encoder,), (projector,) = ours.encoders.values(), (cast(nn.Sequential, p) for p in ours.projectors.values())
    decoder = stock_decoder(ours, placeholder, may_tie=False)
    whisper = cast(Any, encoder).model
    audio = VoxtralEncoderConfig(**{theirs: getattr(whisper.config, name) for name, theirs in WHISPER_SIZES.items()})
    sizes = _sizes_as_llamas(ours)
    config = VoxtralConfig(
        audio_config=audio.to_dict(), text_config={**sizes, **decoder.text_config}, audio_token_id=placeholder.token_id
    )
    with torch.device("meta"):
        stock = VoxtralForConditionalGeneration(config)
    stock.model.audio_tower.load_state_dict(whisper.state_dict(), assign=True)
    adapter = stock.model.multi_modal_projector
    adapter.linear_1, adapter.linear_2 = projector[0], projector[2]
    save_stock(stock, ours, decoder, placeholder, dtype, folder, sizes)


def _sizes_as_llamas(ours: AdaptkitForConditionalGeneration) -> dict[str, Any]:
    """Sizes of a decoder by Llama's names, for which Voxtral's config has values of its own where they are absent."""
    config = ours.language_model.config.get_text_config(decoder=True)
    known = {name: getattr(config, name) for name in _LLAMA_SIZES if getattr(config, name, None) is not None}
    return {**portable_text_config(config), **known}


# -- a recording to compare them by ----------------------------------------------------------------------------------


def _recording_in_part(encoder: Any, generator: torch.Generator) -> Medium:
    """Noise that fills two thirds of a window, as Qwen2-Audio takes it: with a mask."""
    windows, dtype = encoder.windows, next(encoder.parameters()).dtype
    num_frames = windows.frames * 2 // 3
    mels = torch.randn(1, windows.mel_bins, windows.frames, generator=generator).to(dtype)
    mask = (torch.arange(windows.frames) < num_frames).long()[None]
    positions = windows.num_features(num_frames)
    ours = {"input_features": [windows.join(mels, [num_frames])]}
    return Medium("a recording", positions, ours, {"input_features": mels, "feature_attention_mask": mask})


def _recording_of_two_windows(encoder: Any, generator: torch.Generator) -> Medium:
    """Noise that fills two windows, which Voxtral takes as two items."""
    windows, dtype = encoder.windows, next(encoder.parameters()).dtype
    mels = torch.randn(2, windows.mel_bins, windows.frames, generator=generator).to(dtype)
    joined = windows.join(mels, [windows.frames] * 2)
    positions = 2 * windows.num_features(windows.frames)
    return Medium("a recording", positions, {"input_features": [joined]}, {"input_features": mels})


SPEECH_MODELS = {
    "qwen2-audio": StockFormat(
        TITLES["qwen2-audio"],
        Qwen2AudioForConditionalGeneration,
        _write_qwen2,
        _recording_in_part,
        write_qwen2_processor,
        "<|AUDIO|>",
    ),
    "voxtral": StockFormat(
        TITLES["voxtral"],
        VoxtralForConditionalGeneration,
        _write_voxtral,
        _recording_of_two_windows,
        write_voxtral_tokenizer,
        "[AUDIO]",
    ),
}
"""Stock speech models, by the name of the export's target."""
