"""What is particular to routed adapters: who routes, what is adapted, and what the batch must not change."""

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import adaptkit
from adaptkit.policies import MmaOptions
from adaptkit.policies.mma import GroupedLinear, Mma, RouterAdapter
from adaptkit.surgery import AdapterContext, Decoder, mlp_of
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build
from tests.unit.model.test_workflow_properties import ROUNDING, TEXT, _single_rows, logits_of, train_one_step

MMA = {"policy": "mma"}
PARALLEL = ("gptj", "gpt_neox", "phi", "falcon")  # attention and MLP read the same normalised states
FAMILIES = ("llama", "qwen2", "gpt2", *PARALLEL)


def fresh(family, insertion=MMA, **config):
    base = tiny_decoder(family, **config)
    image = {"encoder": tiny_clip_vision(), "placeholder_id": PLACEHOLDER_ID}
    return base, adaptkit.adapt(base, {"image": image}, insertion)


def adapters_of(module):
    return [child for child in module.modules() if isinstance(child, RouterAdapter)]


def routing_of(model, media_set):
    """Routing weights of rows that hold these modalities, `(adapters, rows, 2)`."""
    context = AdapterContext(torch.zeros(len(media_set), 1, dtype=torch.bool), torch.tensor(media_set))
    model.policy.prepare(context, model.language_model, model.policy_modules)
    return torch.stack(list(context.get("routing").values()))


# -- over families ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before_ffn", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_base(family, before_ffn):
    base, model = fresh(family, {**MMA, "before_ffn": before_ffn})
    assert torch.equal(logits_of(model, **TEXT), logits_of(base, **TEXT))


@pytest.mark.parametrize("family", PARALLEL)
def test_where_attention_and_mlp_run_side_by_side_attention_alone_is_adapted(family):
    base, model = build(family, insertion=MMA, replace_ends=False, num_hidden_layers=1)
    seen = []
    for decoder in (base, model.language_model):
        mlp = mlp_of(Decoder(decoder).layers[0])
        mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    expected, found = logits_of(base, **TEXT), logits_of(model, **TEXT)
    assert torch.equal(seen[0], seen[-1])  # what lies between is the modality tokens'
    assert not torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_change_each_other(family):
    _, model = build(family, insertion=MMA, replace_ends=False)
    batch = batch_of(model)
    together = logits_of(model, **batch.inputs)
    for row, (inputs, length) in enumerate(_single_rows(batch)):
        torch.testing.assert_close(together[row : row + 1, :length], logits_of(model, **inputs), **ROUNDING)


@pytest.mark.parametrize("family", PARALLEL)
def test_cached_generation_equals_uncached(family):
    _, model = build(family, insertion={**MMA, "before_ffn": True}, replace_ends=False)
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached = model.generate(**batch.inputs, **options).logits
    uncached = model.generate(**batch.inputs, **options, use_cache=False).logits
    torch.testing.assert_close(torch.stack(cached), torch.stack(uncached), **ROUNDING)


def test_beam_search_equals_one_row_at_a_time():
    _, model = build("llama", insertion=MMA, replace_ends=False)
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False}
    together = model.generate(**batch.inputs, **options)[:, -4:]
    for row, (inputs, _) in enumerate(_single_rows(batch)):
        assert torch.equal(together[row : row + 1], model.generate(**inputs, **options)[:, -4:])


def test_a_family_without_attention_is_refused():
    with pytest.raises(adaptkit.ModelError, match="has no attention module"):
        fresh("mamba")
    with pytest.raises(adaptkit.ModelError, match="OPTDecoderLayer has no MLP module"):
        fresh("opt", {**MMA, "before_ffn": True})


# -- routing ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_rows_are_routed_by_the_modalities_that_they_hold():
    _, model = build("llama", insertion=MMA, replace_ends=False)
    found = routing_of(model, [1, 0, 1, 1])
    assert found.shape == (4, 4, 2)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 4))
    assert torch.equal(found[:, 0], found[:, 2])
    assert torch.equal(found[:, :2], routing_of(model, [1, 0]))
    assert (found[:, 0] != found[:, 1]).any(-1).all()


@torch.no_grad()
def test_every_set_of_modalities_has_a_token():
    names = ("image", "sound")
    modalities = {
        name: {"encoder": tiny_clip_vision(seed=i), "placeholder_id": PLACEHOLDER_ID + i}
        for i, name in enumerate(names)
    }
    model = adaptkit.adapt(tiny_decoder("llama"), modalities, MMA)
    assert model.policy_modules["modality_embedding"].weight.shape == (4, 32)
    found = routing_of(model, [0, 1, 2, 3])[0]
    assert len({tuple(weights.tolist()) for weights in found}) == 4


def test_a_medium_in_a_row_changes_its_routing_alone():
    """Were routing the batch's, a row of text would change with its neighbour."""
    _, model = build("llama", insertion={**MMA, "temperature": 0.1}, replace_ends=False)
    text = batch_of(model, num_items=(0, 0)).inputs
    mixed = batch_of(model, num_items=(0, 1)).inputs
    length = text["input_ids"].shape[1] - 1
    text.pop("features")
    one, other = logits_of(model, **text)[0, :length], logits_of(model, **mixed)[0, :length]
    torch.testing.assert_close(one, other, **ROUNDING)


def test_decoding_goes_on_with_the_weights_of_the_prompt(monkeypatch):
    _, model = build("llama", insertion=MMA, replace_ends=False)
    calls = []
    stock = RouterAdapter.route
    monkeypatch.setattr(RouterAdapter, "route", lambda self, tokens: calls.append(self) or stock(self, tokens))
    model.generate(**TEXT, max_new_tokens=5, min_new_tokens=5)
    assert calls == adapters_of(model.language_model)


def test_gradients_reach_the_routers_and_every_row_that_is_used():
    _, model = build("llama", insertion=MMA, replace_ends=False)
    batch = batch_of(model)
    ids = batch.inputs["input_ids"]
    labels = ids.masked_fill((batch.inputs["attention_mask"] == 0) | (ids == PLACEHOLDER_ID), -100)
    model.train()
    model(**batch.inputs, labels=labels).loss.backward()
    for adapter in adapters_of(model):
        assert all(p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert (model.policy_modules["modality_embedding"].weight.grad.abs().sum(1) > 0).all()


def test_reentrant_checkpointing_is_refused():
    _, model = build("llama", insertion=MMA, replace_ends=False)
    batch = batch_of(model)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": True})
    model.train()
    with pytest.raises(adaptkit.ModelError, match="reentrant gradient checkpointing loses"):
        model(**batch.inputs, labels=batch.labels)


# -- encoders --------------------------------------------------------------------------------------------------------


def test_the_given_encoder_is_untouched():
    given, twin = tiny_clip_vision(), tiny_clip_vision()
    image = {"encoder": given, "placeholder_id": PLACEHOLDER_ID}
    model = adaptkit.adapt(tiny_decoder("llama"), {"image": image}, MMA)
    train_one_step(model, batch_of(model))
    train_one_step(model, batch_of(model))
    assert not adapters_of(given)
    assert [type(module) for module in given.modules()] == [type(module) for module in twin.modules()]
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(given(pixels).last_hidden_state, twin(pixels).last_hidden_state)
        states = given(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        assert not torch.allclose(model.encode("image", pixels), states, atol=1e-4)
    shared = {id(p) for p in given.parameters()}
    own = set(model.trainable_state_dict())
    for name, parameter in model.named_parameters():
        if name.startswith("encoders."):
            assert (id(parameter) in shared) != (name in own), name


@torch.no_grad()
def test_items_of_a_batch_do_not_change_each_others_features():
    _, model = build("llama", insertion={**MMA, "temperature": 0.1}, replace_ends=False)
    pixels = torch.randn(3, 3, 32, 32)
    together = model.encode("image", pixels)
    for item in range(3):
        torch.testing.assert_close(
            together[item : item + 1], model.encode("image", pixels[item : item + 1]), **ROUNDING
        )


def test_blocks_that_do_not_run_get_no_adapter():
    options = {"feature_layer": 3}
    image = {"encoder": tiny_clip_vision(num_hidden_layers=5), "encoder_options": options, "placeholder_id": 999}
    model = adaptkit.adapt(tiny_decoder("llama"), {"image": image}, MMA)
    assert len(adapters_of(model.encoders["image"])) == 3


def test_blocks_that_bypass_their_attention_are_refused():
    encoder = nn.Module()
    encoder.num_layers, encoder.blocks = None, nn.ModuleList([nn.TransformerEncoderLayer(8, 2)])
    with pytest.raises(adaptkit.ModelError, match="encoder_adapter: none"):
        Mma(MmaOptions()).adapt_encoder(encoder)


def test_encoders_stay_frozen_where_asked():
    base, model = fresh("llama", {**MMA, "encoder_adapter": "none"})
    assert model.encoders["image"] is model.source_encoders["image"]
    assert not adapters_of(model.encoders["image"])
    assert len(adapters_of(model.language_model)) == len(base.model.layers)


@pytest.mark.parametrize("several_processes", [False, True])
def test_a_batch_of_text_takes_part_in_every_gradient(several_processes, monkeypatch):
    _, model = fresh("llama")
    model.train()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: several_processes)
    model(**TEXT, labels=TEXT["input_ids"]).loss.backward()
    gradients = {name: model.get_parameter(name).grad for name in model.trainable_state_dict()}
    assert all(gradient is not None for gradient in gradients.values())
    idle = {name: g for name, g in gradients.items() if name.startswith(("encoders.", "projectors."))}
    assert idle
    assert not any(gradient.any() for gradient in idle.values())


def test_training_mode_reaches_the_adapters_alone():
    _, model = fresh("llama")
    for mode in (True, False):
        model.train(mode)
        assert {adapter.dropout.training for adapter in adapters_of(model)} == {mode}
        assert not model.encoders["image"].model.training


# -- the adapter -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_grouped_map_is_a_grouped_convolution():
    mine, conv = GroupedLinear(8, 12, 4), nn.Conv1d(8, 12, 1, groups=4)
    mine.weight.copy_(conv.weight[..., 0])
    mine.bias.copy_(conv.bias)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(mine(x), conv(x.transpose(1, 2)).transpose(1, 2))


def test_groups_must_divide_the_widths():
    with pytest.raises(adaptkit.PluginError, match="groups: 3 does not divide hidden_size 8"):
        fresh("llama", {**MMA, "groups": 3})
    with pytest.raises(adaptkit.ModelError, match="groups: 3 does not divide the width 32"):
        fresh("llama", {**MMA, "groups": 3, "hidden_size": 6})


def test_a_half_precision_base_has_float32_adapters():
    base = tiny_decoder("llama").to(torch.bfloat16)
    image = {"encoder": tiny_clip_vision().to(torch.bfloat16), "placeholder_id": PLACEHOLDER_ID}
    model = adaptkit.adapt(base, {"image": image}, MMA)
    own = model.trainable_state_dict()
    assert {value.dtype for value in own.values()} == {torch.float32}
    train_one_step(model, batch_of(model))
    changed = model.trainable_state_dict()
    assert torch.isfinite(torch.cat([value.flatten() for value in changed.values()])).all()


def test_lavin_7b_has_3_8_million_trainable_parameters():
    """The paper's number: its decoder, its CLIP, its projector."""
    with torch.device("meta"):
        base = LlamaForCausalLM(LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32))
        clip = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
            )
        )
    image = {
        "encoder": clip,
        "encoder_options": {"feature_layers": [4, 8, 12, 16, 20, 24], "tokens": "cls"},
        "projector": {"name": "mlp_silu", "hidden_size": 128},
    }
    model = adaptkit.adapt(base, {"image": image}, MMA)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_781_296
