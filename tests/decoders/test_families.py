"""What is odd about some families, and what the library does about it."""

from __future__ import annotations

import pytest
import torch

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.surgery import Decoder, check_forward, locate_decoder, structural_copy
from adaptkit.surgery.decoder import final_norms
from adaptkit.testing import subjects, tiny_decoder
from tests.decoders import checks
from tests.unit.model.conftest import batch_of, build


def insert(family, layers, **config):
    base = tiny_decoder(family, **config)
    decoder = Decoder(structural_copy(base))
    decoder.insert_copies_after(layers)
    return base, decoder


@pytest.mark.parametrize(
    ("family", "settings", "name", "before", "after"),
    [
        ("llama4_text", {}, "no_rope_layers", [1, 0, 1], [1, 0, 0, 1, 1]),
        (
            "gpt_neo",
            {},
            "attention_layers",
            ["global", "local", "global"],
            ["global", "local", "local", "global", "global"],
        ),
        ("qwen2_moe", {"decoder_sparse_step": 2}, "mlp_only_layers", [], [0, 3, 4]),
        ("bamba", {}, "attn_layer_indices", [1], [1, 2]),
        ("deepseek_v3", {"first_k_dense_replace": 2}, "first_k_dense_replace", 2, 3),
        ("ernie4_5_moe", {"moe_layer_end_index": 1}, "moe_layer_end_index", 1, 2),
        ("bart", {}, "decoder_layers", 3, 5),
    ],
)
def test_what_a_config_says_of_layers_grows_with_them(family, settings, name, before, after):
    base, decoder = insert(family, [1, 2], **settings)
    assert getattr(base.config, name) == before
    assert getattr(decoder.config, name) == after


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "cohere2", "gpt_oss", "qwen3_next", "lfm2_moe"])
def test_inserted_layers_are_of_their_sources_kind(family):
    base, decoder = insert(family, [0, 1])
    kinds = base.config.layer_types
    assert len(set(kinds)) == 2
    assert decoder.config.layer_types == [kinds[old] for old in (0, 0, 1, 1, 2)]


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
    ],
)
def test_windows_that_a_config_asks_for_hold_in_inserted_layers(family, config):
    subject = checks.workflow_on(family, **config)
    checks.equals_a_stock_model(subject)
    subjects.cached_generation_equals_uncached(subject)
    checks.static_cache_equals_none(subject)


def test_layers_with_settings_of_their_own_keep_them():
    base, decoder = insert("gemma4_text", [1, 2], hidden_size_per_layer_input=0, global_head_dim=16)
    widths = [layer.head_dim for layer in base.config.per_layer_config]
    assert len(set(widths)) == 2
    assert [layer.head_dim for layer in decoder.config.per_layer_config] == [widths[old] for old in (0, 1, 1, 2, 2)]


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("olmo", []),
        ("opt", ["model.decoder.final_layer_norm"]),
        ("biogpt", ["biogpt.layer_norm"]),
        ("mamba", ["backbone.norm_f"]),
        ("modernbert-decoder", ["model.final_norm", "lm_head.dense", "lm_head.norm"]),
        ("rembert", ["cls.predictions.dense", "cls.predictions.LayerNorm"]),
    ],
)
def test_what_stands_between_layers_and_head_is_found(family, names):
    assert final_norms(tiny_decoder(family)) == names


def test_an_output_projection_is_replaced_with_the_ends():
    base = tiny_decoder("opt", word_embed_proj_dim=16, do_layer_norm_before=False)
    decoder = Decoder(structural_copy(base))
    assert decoder.replace_ends() == ["model.decoder.embed_tokens", "model.decoder.project_out", "lm_head"]


@pytest.mark.parametrize("family", ["gemma", "gemma3_text", "biogpt", "xglm"])
def test_scaled_embeddings_stay_scaled_when_they_are_replaced(family):
    base = tiny_decoder(family)
    decoder = Decoder(structural_copy(base))
    decoder.replace_ends()
    assert decoder.model.get_input_embeddings() is not base.get_input_embeddings()
    assert torch.equal(subjects.logits_of(decoder.model, **subjects.TEXT), subjects.logits_of(base, **subjects.TEXT))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "gpt_oss"])
def test_a_router_loss_in_the_config_does_not_disturb_training(family):
    insertion = {"policy": "inner_adapter", "placement": {"layers": [1]}}
    base, model = build(family, insertion=insertion, output_router_logits=True)
    batch = batch_of(model)
    before = subjects.logits_of(base, **subjects.TEXT)
    loss = model.train()(**batch.inputs, labels=batch.labels).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad and p.ndim != 3)
    assert torch.equal(subjects.logits_of(base.eval(), **subjects.TEXT), before)


@pytest.mark.parametrize(
    ("family", "settings", "layers", "reason"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, [1], "divides by the layer's number"),
        ("rwkv", {}, [1], "rescale_every"),
        ("gemma4_text", {}, [1], "embed_tokens_per_layer depends on the number of layers"),
        ("jamba", {}, [1], "JambaMambaDecoderLayer"),
        ("diffllama", {}, [1], "lambda_init"),
        ("minicpm3", {}, [1], "residual_scale"),
        ("modernbert-decoder", {}, [0], "attn_norm has class Identity"),
        ("zamba", {}, [1], "layers 1 and 3 share"),
    ],
)
def test_what_depends_on_a_layers_number_is_named(family, settings, layers, reason):
    with pytest.raises(ModelError, match=reason):
        insert(family, layers, **settings)


def test_a_model_that_ignores_embeddings_is_refused():
    with pytest.raises(ModelError, match="does not run on inputs_embeds"):
        adaptkit.adapt(tiny_decoder("cpmant"), {})


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_is_refused_among_the_families_that_can_be_either(family):
    assert locate_decoder(tiny_decoder(family)).layers
    with pytest.raises(ModelError, match="Load it with is_decoder=True"):
        adaptkit.adapt(tiny_decoder(family, is_decoder=False), {})


def test_a_family_that_always_sees_later_tokens_is_refused():
    with pytest.raises(ModelError, match=r"a token changes .* before it.*\.$"):
        adaptkit.adapt(tiny_decoder("xlnet"), {})


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "granitemoehybrid"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_among_experts_is_no_sight_of_later_tokens(family, dtype):
    check_forward(tiny_decoder(family).to(dtype))


def test_a_decoder_beside_an_encoder_of_the_same_depth_is_told_apart():
    decoder = locate_decoder(tiny_decoder("got_ocr2"))
    assert decoder.layers_name == "model.language_model.layers"


def test_a_workflow_on_a_state_space_model_refers_to_its_cache_by_name():
    model = checks.workflow_on("mamba").model
    inputs = batch_of(model, padding_side="left").inputs
    output = model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    assert output.sequences.shape[1] == inputs["input_ids"].shape[1] + 2
