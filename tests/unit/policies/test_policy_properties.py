"""What holds for every policy, whatever it inserts."""

import pytest
import torch

import adaptkit
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build
from tests.unit.model.test_workflow_properties import ROUNDING, TEXT, logits_of, train_one_step
from tests.unit.policies.conftest import POLICIES, insertion_of

STARTS_AS_THE_BASE = sorted(set(POLICIES) - {"inner_adapter", "inner_adapter_delta"})


def fresh(family, policy):
    """A workflow as `adapt` makes it, nothing moved off its starting point."""
    base = tiny_decoder(family, num_hidden_layers=4)
    image = {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "placeholder_id": PLACEHOLDER_ID}
    return base, adaptkit.adapt(base, {"image": image}, insertion_of(policy))


@pytest.mark.parametrize("name", STARTS_AS_THE_BASE)
def test_the_workflow_starts_as_the_base(name, family):
    base, model = fresh(family, name)
    assert torch.equal(logits_of(model, **TEXT), logits_of(base, **TEXT))


def test_the_text_workflow_is_bit_identical_before_and_after_training(policy, family, base_and_model):
    base, model = base_and_model
    expected = logits_of(tiny_decoder(family, num_hidden_layers=4), **TEXT)
    assert torch.equal(logits_of(model.base, **TEXT), expected)
    train_one_step(model, batch_of(model))
    base.eval()
    assert model.base is base
    assert torch.equal(logits_of(model.base, **TEXT), expected)


def test_a_step_changes_every_own_tensor_and_no_other(base_and_model):
    base, model = base_and_model
    own = model.trainable_state_dict()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    base_before = {name: p.detach().clone() for name, p in base.named_parameters()}
    train_one_step(model, batch_of(model))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in own), name
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter, base_before[name]), name


def test_frozen_tensors_are_the_bases_own(policy, base_and_model):
    base, model = base_and_model
    shared = {id(p) for p in base.parameters()}
    own = set(model.trainable_state_dict())
    for name, parameter in model.language_model.named_parameters():
        assert (f"language_model.{name}" in own) != (id(parameter) in shared), name
    if policy == "full":
        assert not shared & {id(p) for p in model.language_model.parameters()}


def test_save_then_load_reproduces_the_outputs(base_and_model, tmp_path):
    base, model = base_and_model
    batch = batch_of(model)
    model.save_pretrained(tmp_path)
    loaded = adaptkit.load(tmp_path, base=base)
    assert torch.equal(logits_of(loaded, **batch.inputs), logits_of(model, **batch.inputs))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_cached_generation_equals_uncached(base_and_model, cache):
    _, model = base_and_model
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    implementation = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    cached = model.generate(**batch.inputs, **options, **implementation)
    uncached = model.generate(**batch.inputs, **options, use_cache=False)
    for one, other in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)


def test_left_and_right_padding_agree(base_and_model):
    _, model = base_and_model
    left, right = batch_of(model, padding_side="left"), batch_of(model, padding_side="right")
    positions = left.inputs["attention_mask"].cumsum(1).sub(1).clamp(min=0)
    left_logits = logits_of(model, **left.inputs, position_ids=positions)[left.inputs["attention_mask"] == 1]
    right_logits = logits_of(model, **right.inputs)[right.inputs["attention_mask"] == 1]
    torch.testing.assert_close(left_logits, right_logits, **ROUNDING)


def test_gradient_checkpointing_changes_no_gradient(base_and_model):
    _, model = base_and_model
    batch = batch_of(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.train()
        model.zero_grad()
        torch.manual_seed(0)  # the same dropout
        model(**batch.inputs, labels=batch.labels).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() >= set(model.trainable_state_dict())
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_ends_of_its_own_go_with_every_policy(policy, family, tmp_path):
    base, model = build(family, insertion=insertion_of(policy), replace_ends=True)
    own = model.trainable_parts()
    assert len(own["ends"]) >= 3
    assert (policy == "projector_only") == ("insertion" not in own)
    model.save_pretrained(tmp_path)
    batch = batch_of(model)
    loaded = adaptkit.load(tmp_path, base=base)
    assert torch.equal(logits_of(loaded, **batch.inputs), logits_of(model, **batch.inputs))


def test_what_a_policy_registers_is_what_it_is():
    """Recipes are judged by what is registered, before anything is built."""
    for name, values in POLICIES.items():
        manager, chosen = get_plugin_manager(), dict(values)
        policy = chosen.pop("policy", name)
        chosen.pop("placement", None)
        component, options = (
            manager.get("insertion policy", policy),
            manager.options("insertion policy", policy, chosen),
        )
        built = component.build(options)
        assert component.needs_placement(options) == built.needs_placement
        assert (component.feature_mode(options) or "splice") == built.feature_mode
        assert bool(component.adapts_encoders(options)) == built.adapts_encoders
        assert built.adapts_encoders == (policy == "mma" and options.encoder_adapter == "router")


def test_the_decoder_alone_says_that_it_needs_its_workflow():
    _, model = build("llama", insertion=insertion_of("controlnet"))
    with pytest.raises(adaptkit.ModelError, match="language_model"):
        model.language_model(**TEXT)
