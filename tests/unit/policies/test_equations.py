"""The policies' equations, written out layer by layer."""

import pytest
import torch

import adaptkit
from tests.unit.model.conftest import build
from tests.unit.model.test_workflow_properties import TEXT, logits_of
from tests.unit.policies.conftest import insertion_of

LAYERS = [1, 3]


def run_by_hand(model, insert):
    """A Llama's forward over `TEXT`, `insert` standing for frozen layer `index` and what belongs to it."""
    decoder = model.language_model.model
    embeds = decoder.embed_tokens(TEXT["input_ids"])
    positions = torch.arange(embeds.shape[1]).unsqueeze(0)
    rotary = decoder.rotary_emb(embeds, positions)
    length = embeds.shape[1]
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]

    def run(layer, hidden_states):
        return layer(hidden_states, attention_mask=mask, position_embeddings=rotary, position_ids=positions)

    hidden_states = embeds
    for index in range(4):
        hidden_states = insert(index, hidden_states, run)
    return model.language_model.lm_head(decoder.norm(hidden_states))


def plain_layers(model):
    """Frozen layers by number, and insertion layers in order, as stock Llama layers."""
    base = model.base.model.layers
    inserted = []
    for (kind, source), layer in zip(model.config.layer_map, model.language_model.model.layers, strict=True):
        if kind == "inserted":
            stock = type(base[0])(model.base.config, layer_idx=source).eval()
            stock.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("gate.")})
            inserted.append((stock, getattr(layer, "gate", None)))
    return base, inserted


@torch.no_grad()
@pytest.mark.parametrize("policy", ["inner_adapter", "gated_inner_adapter", "controlnet"])
def test_scheme(policy):
    _, model = build("llama", insertion=insertion_of(policy), replace_ends=False)
    frozen, inserted = plain_layers(model)
    stream = []

    def insert(index, x, run):
        y = run(frozen[index], x)
        if index not in LAYERS:
            return y
        layer, gate = inserted[LAYERS.index(index)]
        if policy == "inner_adapter":
            return run(layer, y)
        if policy == "gated_inner_adapter":
            return y + gate(run(layer, y))
        stream.append(run(layer, stream[-1] if stream else x))
        return y + gate(stream[-1])

    expected = run_by_hand(model, insert)
    torch.testing.assert_close(logits_of(model, **TEXT), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_low_rank_insertion_layer_is_the_frozen_layer_plus_its_difference():
    base, model = build("llama", insertion=insertion_of("inner_adapter_delta"), replace_ends=False)
    wrapped = model.language_model.model.layers[2].self_attn.q_proj
    assert wrapped.base_layer.weight is base.model.layers[1].self_attn.q_proj.weight
    x = torch.randn(2, 32)
    difference = 2 * x @ wrapped.lora_A["default"].weight.T @ wrapped.lora_B["default"].weight.T
    torch.testing.assert_close(wrapped(x), wrapped.base_layer(x) + difference)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    delta = sum(sizes[name] for name in model.trainable_parts()["insertion"])
    _, whole = build("llama", insertion=insertion_of("inner_adapter"), replace_ends=False)
    sizes = {name: p.numel() for name, p in whole.named_parameters()}
    assert delta < sum(sizes[name] for name in whole.trainable_parts()["insertion"]) / 2


def test_lora_only_where_asked():
    insertion = {"policy": "lora", "rank": 2, "target_modules": ["q_proj"], "placement": {"layers": [2]}}
    _, model = build("llama", insertion=insertion, replace_ends=False)
    names = model.trainable_parts()["insertion"]
    assert names
    assert all(".layers.2.self_attn.q_proj.lora_" in name for name in names)
    assert [kind for kind, _ in model.config.layer_map] == ["frozen", "frozen", "adapted", "frozen"]
    with pytest.raises(adaptkit.ModelError, match=r"target_modules.*'q_prj'"):
        build("llama", insertion={**insertion, "target_modules": ["q_prj"]})


def test_gates_are_float32_maps_of_the_hidden_width():
    _, model = build("llama", insertion=insertion_of("gated_inner_adapter"), replace_ends=False)
    gates = [p for name, p in model.named_parameters() if ".gate." in name]
    assert len(gates) == len(LAYERS)
    assert all(gate.shape == (32, 32) and gate.dtype == torch.float32 for gate in gates)


def test_unfreezing_keeps_ties_and_leaves_the_base():
    base, model = build("gpt2", insertion=insertion_of("full"), replace_ends=False)
    decoder = model.language_model
    assert decoder.lm_head.weight is decoder.transformer.wte.weight
    assert decoder.lm_head.weight is not base.lm_head.weight
