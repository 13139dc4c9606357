"""Write decoders with random weights in the layouts of Qwen2.5-0.5B-Instruct and Llama-3.2-1B-Instruct.

`python stand_in_decoders.py MODELS` writes MODELS/qwen and MODELS/llama: a few small layers, and a byte-level BPE
tokenizer with the family's own way to split text, its special tokens and its chat template. The merges are learned from
English text that ships with Python. `MODELS/sizes/NAME` gets the config.json of the published sizes, without weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from adaptkit.chat.shipped import load_chat_template

SIZES: dict[str, dict[str, Any]] = {
    "Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-7B-Instruct": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "Llama-3.2-1B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "Llama-3.1-8B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
"""The sizes in the published config.json files, as far as memory depends on them."""

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
NUM_TOKENS, NUM_TOPICS = 2500, 12


def learned_tokenizer(digits: str, first: list[str], bos: str | None) -> Tokenizer:
    """A byte-level BPE that splits text as a family does.

    Args:
        digits: Expression for the digits that may be in one token.
        first: Special tokens.
        bos: Special token before every text, if any.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT.format(digits=digits)), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS, initial_alphabet=alphabet, special_tokens=first, show_progress=False
    )
    numbers = " ".join(f"{number:03}" for number in range(1000))
    texts = list(topics.values())[:NUM_TOPICS]
    tokenizer.train_from_iterator([*texts, *[numbers] * 20], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def write_decoder(folder: Path, name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """A decoder of the family of a published one, with fewer and smaller layers, and its tokenizer."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(**{**SIZES[name], **SMALL, **ids, "vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(**ids, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(folder: Path) -> None:
    """Write both stand-ins, and the published sizes."""
    qwen = PreTrainedTokenizerFast(
        tokenizer_object=learned_tokenizer(r"\p{N}", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=load_chat_template("qwen2"),
    )
    write_decoder(folder / "qwen", "Qwen2.5-0.5B-Instruct", qwen)
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    special = [f"<|{name}|>" for name in (*names, *(f"reserved_special_token_{number}" for number in range(247)))]
    llama = PreTrainedTokenizerFast(
        tokenizer_object=learned_tokenizer(r"\p{N}{1,3}", special, "<|begin_of_text|>"),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=load_chat_template("llama3"),
    )
    write_decoder(folder / "llama", "Llama-3.2-1B-Instruct", llama)
    for name, values in SIZES.items():
        AutoConfig.for_model(**values, dtype="bfloat16").save_pretrained(folder / "sizes" / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
