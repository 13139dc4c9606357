"""Models and a tokenizer of a few thousand parameters, made in memory, the same every time."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from adaptkit.testing.families import INITIALIZER_RANGE, tiny_config

_SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 259 tokens that loses nothing, with a ChatML template of string contents.

    `<|im_end|>` ends a turn and a text; `<|pad|>` pads.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def tiny_decoder(family: str, *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A random decoder LLM, float32, in evaluation mode, whose vocabulary is `tiny_tokenizer`'s.

    Args:
        family: One of `FAMILIES`, or any other `model_type` that `AutoModelForCausalLM` knows.
        seed: Of the weights; the global random state is left alone.
        config: Further settings of the family's config, or other values for those set here.

    Raises:
        ModelError: The family is unknown.
    """
    settings = tiny_config(family, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    model.eval()
    return model


def tiny_clip_vision(*, seed: int = 0, **config: Any) -> CLIPVisionModel:
    """A random CLIP vision model in evaluation mode: 2 layers, width 32, 16 patches of 8 by 8 pixels."""
    settings = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": INITIALIZER_RANGE,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPVisionModel(CLIPVisionConfig(**settings))
    return model.eval()
