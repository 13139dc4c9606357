"""What makes inputs of an exported speech model: a stock processor, or tokenizer and feature extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor
from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

from adaptkit.errors import ModelError
from adaptkit.export.templates import flat_template
from adaptkit.export.verification import compare_ids
from adaptkit.export.vocabulary import Placeholder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor

_MEL_TOLERANCE = 1e-5
"""Both use one feature extractor; only sums of another order differ."""


def write_qwen2_processor(
    processor: AdaptkitProcessor, model: AdaptkitForConditionalGeneration, placeholder: Placeholder, folder: Path
) -> float:
    """Write a `Qwen2AudioProcessor`, and compare what both make of a conversation with two recordings.

    Returns:
        The largest difference of log-mel values.

    Raises:
        ModelError: Token ids or values differ, or the window is not a whole number of seconds.
    """
    (name,) = model.encoders
    stock = Qwen2AudioProcessor(
        feature_extractor=_extractor(cast(Any, model.encoders[name])),
        tokenizer=placeholder.tokenizer,
        chat_template=flat_template(processor, name, placeholder),
        audio_token=placeholder.token,
    )
    stock.save_pretrained(folder)
    stock.feature_extractor.save_pretrained(folder)  # where libraries before transformers 5 look for it
    return _compare(processor, Qwen2AudioProcessor.from_pretrained(folder), name)


def write_voxtral_tokenizer(
    processor: AdaptkitProcessor, model: AdaptkitForConditionalGeneration, placeholder: Placeholder, folder: Path
) -> None:
    """Write tokenizer, chat template and feature extractor; `VoxtralProcessor` knows Mistral's tokenizer alone."""
    (name,) = model.encoders
    tokenizer = placeholder.tokenizer
    tokenizer.chat_template = flat_template(processor, name, placeholder)
    tokenizer.save_pretrained(folder)
    _extractor(cast(Any, model.encoders[name])).save_pretrained(folder)


def _extractor(encoder: Any) -> WhisperFeatureExtractor:
    """The encoder's own, padding to its window."""
    own = encoder.build_preprocessor().log_mel.extractor
    seconds = encoder.windows.frames * own.hop_length / own.sampling_rate
    if seconds != int(seconds):
        raise ModelError(
            f"the encoder's window is {seconds:g} seconds; stock feature extractors pad to whole seconds. Pass "
            "processor=None and prepare inputs yourself."
        )
    names = ("feature_size", "sampling_rate", "hop_length", "n_fft", "padding_value")
    settings = {name: getattr(own, name) for name in names}
    return WhisperFeatureExtractor(**settings, chunk_length=int(seconds), return_attention_mask=True)


def _compare(ours: AdaptkitProcessor, stock: Any, modality: str) -> float:
    rate = stock.feature_extractor.sampling_rate
    seconds = stock.feature_extractor.chunk_length
    recordings = [_chirp(round(part * seconds * rate)) for part in (0.37, 0.81)]
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "one "},
        {"type": modality, modality: (recordings[0], rate)},
        {"type": "text", "text": "\ntwo"},
        {"type": modality, modality: (recordings[1], rate)},
    ]
    difference = 0.0
    mels = stock.feature_extractor(recordings, sampling_rate=rate, return_tensors="pt")["input_features"]
    for part, theirs in zip(content[1::2], mels, strict=True):
        mine = ours.modalities[modality].load(part[modality])
        difference = max(difference, float((mine[: len(theirs)] - theirs).abs().max()))
    if not difference <= _MEL_TOLERANCE:
        raise ModelError(f"the stock processor makes other log-mel values: they differ by {difference:.2g}.")
    if ours.chat_template is None:
        return difference

    def stock_ids() -> Tensor:
        parts = [{"type": "audio"} if part["type"] == modality else part for part in content]
        messages = [{"role": "user", "content": parts}]
        text = stock.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        options = {"return_tensors": "pt", "sampling_rate": rate, "add_special_tokens": False}
        ids: Tensor = stock(text=text, audio=recordings, **options)["input_ids"]
        return ids

    compare_ids(ours, modality, content, stock_ids, stock.audio_token_id)
    return difference


def _chirp(num_samples: int) -> Any:
    time = np.arange(num_samples) / 16_000
    return (0.4 * np.sin(2 * np.pi * (200 + 900 * time) * time)).astype(np.float32)
