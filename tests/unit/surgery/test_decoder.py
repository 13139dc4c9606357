import pytest
import torch
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.surgery import Decoder, structural_copy
from adaptkit.surgery.decoder import final_norms
from adaptkit.testing import tiny_decoder

FAMILIES = ("llama", "qwen2", "mistral", "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_structural_copy_shares_every_tensor_and_nothing_else(family):
    base = tiny_decoder(family)
    copy = structural_copy(base)
    assert copy.config is not base.config
    for (name, tensor), (copied_name, copied) in zip(base.state_dict(keep_vars=True).items(),
                                                     copy.state_dict(keep_vars=True).items(), strict=True):  # fmt: skip
        assert name == copied_name
        assert tensor is copied
    modules = {id(m) for m in base.modules()}
    assert not any(id(m) in modules for m in copy.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_is_found_whatever_its_name(family):
    base = tiny_decoder(family)
    assert final_norms(base) == [{"gpt2": "transformer.ln_f"}.get(family, "model.norm")]


def test_per_layer_lists_of_the_config_grow_with_the_layers():
    base = tiny_decoder("qwen2", num_hidden_layers=4, use_sliding_window=True, sliding_window=4, max_window_layers=2)
    assert base.config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    decoder = Decoder(structural_copy(base))
    decoder.insert_copies_after([1, 3])
    assert decoder.config.layer_types == ["full_attention"] * 3 + ["sliding_attention"] * 3
    assert decoder.config.num_hidden_layers == len(decoder.layers) == 6
    assert [layer.self_attn.layer_idx for layer in decoder.layers] == list(range(6))
    assert [(r.kind, r.source) for r in decoder.layer_map] == [
        ("frozen", 0), ("frozen", 1), ("inserted", 1), ("frozen", 2), ("frozen", 3), ("inserted", 3),
    ]  # fmt: skip
    assert base.config.num_hidden_layers == len(base.model.layers) == 4
    assert [layer.self_attn.layer_idx for layer in base.model.layers] == list(range(4))


def test_inserted_layers_refer_to_the_config_of_their_decoder():
    base = tiny_decoder("llama")
    decoder = Decoder(structural_copy(base))
    (inserted,) = decoder.insert_copies_after([0])
    assert inserted.self_attn.config is decoder.model.config


def test_inserted_layers_are_float32_masters_of_a_half_precision_layer():
    base = tiny_decoder("llama").to(torch.bfloat16)
    (inserted,) = Decoder(structural_copy(base)).insert_copies_after([0])
    assert all(p.dtype == torch.float32 and p.requires_grad for p in inserted.parameters())
    assert all(p.dtype == torch.bfloat16 for p in base.parameters())


def test_attention_scaled_by_layer_number_is_refused():
    base = tiny_decoder("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx"):
        Decoder(structural_copy(base)).insert_copies_after([0])


def test_a_model_without_a_list_of_layers_is_refused():
    base = tiny_decoder("llama")
    copy = structural_copy(base)
    copy.model.layers = nn.ModuleList(list(copy.model.layers)[:1])
    with pytest.raises(ModelError, match="no list of modules has num_hidden_layers"):
        Decoder(copy)


def test_shared_layers_are_refused():
    copy = structural_copy(tiny_decoder("llama", num_hidden_layers=2))
    copy.model.layers[1] = copy.model.layers[0]
    with pytest.raises(ModelError, match="layer_idx is 0 inside layer 1"):
        Decoder(copy)
