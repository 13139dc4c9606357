"""Attention and MLP of a layer are found in every family, or their absence is said."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from adaptkit.errors import ModelError
from adaptkit.surgery import locate_decoder
from adaptkit.surgery.layers import attention_blocks, attention_of, mlp_of
from adaptkit.testing import tiny_clip_vision, tiny_decoder

FAMILIES = {
    "llama": ("LlamaAttention", "LlamaMLP"),
    "gpt2": ("GPT2Attention", "GPT2MLP"),
    "gptj": ("GPTJAttention", "GPTJMLP"),
    "gpt_neo": ("GPTNeoAttention", "GPTNeoMLP"),
    "gpt_neox": ("GPTNeoXAttention", "GPTNeoXMLP"),
    "falcon": ("FalconAttention", "FalconMLP"),
    "mpt": ("MptAttention", "MptMLP"),
    "mixtral": ("MixtralAttention", "MixtralSparseMoeBlock"),
    "llama4_text": ("Llama4TextAttention", "Llama4TextMoe"),
}


def first_layer(family: str) -> nn.Module:
    return locate_decoder(tiny_decoder(family)).layers[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_are_the_familys(family: str) -> None:
    layer = first_layer(family)
    assert (type(attention_of(layer)).__name__, type(mlp_of(layer)).__name__) == FAMILIES[family]


def test_blocks_of_an_encoder_have_them_too() -> None:
    model = tiny_clip_vision()
    assert isinstance(model, CLIPVisionModel)
    block = model.encoder.layers[0]
    assert attention_of(block) is block.self_attn
    assert mlp_of(block) is block.mlp


def test_a_layer_without_attention_is_refused_by_its_parts() -> None:
    with pytest.raises(ModelError, match=r"MambaBlock.*attention.*mixer \(MambaMixer\)"):
        attention_of(first_layer("mamba"))


def test_an_mlp_that_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match="OPTDecoderLayer has no MLP module"):
        mlp_of(first_layer("opt"))


def test_a_layer_with_cross_attention_is_ambiguous() -> None:
    layer = nn.Module()
    layer.self_attn, layer.cross_attn = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
    with pytest.raises(ModelError, match="Module has 2 attention modules"):
        attention_of(layer)


def test_blocks_of_an_encoder_are_found_in_order_and_not_its_pooling() -> None:
    model = SiglipVisionModel(
        SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2)
    )
    assert attention_blocks(model) == list(model.encoder.layers)  # its pooling head has an attention as well
    sequence = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2) for _ in range(2)))
    assert attention_blocks(nn.ModuleDict({"blocks": sequence})) == list(sequence)


def test_a_convolutional_encoder_has_no_blocks() -> None:
    with pytest.raises(ModelError, match="Sequential has no transformer blocks"):
        attention_blocks(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
