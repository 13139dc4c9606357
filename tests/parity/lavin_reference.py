"""The tiny LaVIN whose results are recorded, as checkpoints of transformers and of LaVIN."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

NUM_HEADS = 4


def write_base(tensors: dict[str, Tensor], folder: Path) -> None:
    """LLaMA in Meta's layout becomes transformers', which rotates halves instead of interleaved pairs."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=NUM_HEADS,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    parts = {
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    state = {
        "model.embed_tokens.weight": tensors["tok_embeddings.weight"],
        "model.norm.weight": tensors["norm.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    for index in range(4):
        for theirs, ours in parts.items():
            value = tensors[f"layers.{index}.{theirs}.weight"]
            if theirs in ("attention.wq", "attention.wk"):
                pairs = value.view(NUM_HEADS, -1, 2, value.shape[1])
                value = pairs.transpose(1, 2).reshape(value.shape)
            state[f"model.layers.{index}.{ours}.weight"] = value
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    model.save_pretrained(folder)
    _tokenizer(config.vocab_size).save_pretrained(folder)


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Words that nobody reads: what is compared are ids."""
    words = ["<unk>", "<s>", "</s>", *(f"w{index}" for index in range(3, vocab_size))]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def write_encoder(tensors: dict[str, Tensor], folder: Path) -> None:
    """OpenAI's CLIP, its packed projections taken apart."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        layer_norm_eps=1e-5,
        hidden_act="quick_gelu",
    )
    own = {n.removeprefix("backbone.visual."): t for n, t in tensors.items() if n.startswith("backbone.visual.")}
    state = {
        "embeddings.class_embedding": own["class_embedding"],
        "embeddings.patch_embedding.weight": own["conv1.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
    }
    for theirs, ours in {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}.items():
        state |= {f"{ours}.{kind}": own[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for index in range(8):
        block, layer = f"transformer.resblocks.{index}", f"encoder.layers.{index}"
        for kind in ("weight", "bias"):
            state |= {f"{layer}.{ours}.{kind}": own[f"{block}.{theirs}.{kind}"] for theirs, ours in parts.items()}
            for name, value in zip("qkv", own[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                state[f"{layer}.self_attn.{name}_proj.{kind}"] = value
    model = CLIPVisionModel(config)
    vision = getattr(model, "vision_model", model)
    missing, unexpected = vision.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing), missing
    model.save_pretrained(folder)


def load(folder: Path, name: str) -> dict[str, Tensor]:
    """A file of the reference data."""
    return load_file(folder / f"{name}.safetensors")


def case_of(tensors: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    """Tensors of one case of `modules.safetensors`; `state` apart by `state/`."""
    return {name.removeprefix(f"{case}/"): value for name, value in tensors.items() if name.startswith(f"{case}/")}


def sequences(inputs: dict[str, Tensor], placeholder_id: int) -> tuple[Tensor, Tensor]:
    """Their inputs without the modality token: ids with placeholders, and labels, `(batch, S - 1)`."""
    rows, labels = [], []
    for ids, targets, indicator in zip(
        inputs["examples"], inputs["labels"], inputs["img_indicators"].tolist(), strict=True
    ):
        media = torch.full((2,), placeholder_id)
        prefix = torch.cat([inputs["prefix_img"], media]) if indicator else inputs["prefix_nonimg"]
        rows.append(torch.cat([ids[:1], prefix, ids[1:]])[: len(ids) - 1])
        unsupervised = torch.zeros_like(prefix)
        labels.append(torch.cat([targets[:1], unsupervised, targets[1:]])[: len(ids) - 1])
    together = torch.stack(labels)
    return torch.stack(rows), together.masked_fill(together == 0, -100)
