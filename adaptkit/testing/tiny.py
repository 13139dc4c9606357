"""Models and a tokenizer of a few thousand parameters, made in memory, the same every time."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from adaptkit.errors import ModelError, unknown_name

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
_GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES, **_GROUPED},
    "qwen2": {**_SIZES, **_GROUPED},
    "mistral": {**_SIZES, **_GROUPED, "head_dim": 8, "sliding_window": None},
    "gpt2": {
        **_SIZES,
        "max_position_embeddings": 512,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
FAMILIES = tuple(_FAMILIES)
"""The decoder families that `tiny_decoder` makes; gpt2 has learned positions and ties its ends."""

_SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Wide enough that greedy choices do not hang on rounding, as with the library's 0.02 at this width
_INITIALIZER_RANGE = 0.2


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
        family: One of `FAMILIES`.
        seed: Of the weights; the global random state is left alone.
        config: Further settings of the family's config, or other values for those set here.

    Raises:
        ModelError: The family is unknown.
    """
    if family not in _FAMILIES:
        raise ModelError(unknown_name("tiny decoder family", family, FAMILIES))
    settings = {
        "vocab_size": len(_SPECIAL_TOKENS) + 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": _INITIALIZER_RANGE,
        **_FAMILIES[family],
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings), dtype=torch.float32)
    model.eval()
    return model


def tiny_clip_vision(*, seed: int = 0, **config: Any) -> CLIPVisionModel:
    """A random CLIP vision model in evaluation mode: 2 layers, width 32, 16 patches of 8 by 8 pixels."""
    settings = {
        **_SIZES,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
        "initializer_range": _INITIALIZER_RANGE,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPVisionModel(CLIPVisionConfig(**settings))
    return model.eval()
