"""What policies keep beside a KV cache belongs to that cache."""

import copy

import pytest
import torch
from transformers import CompileConfig, GenerationConfig, StaticCache

import adaptkit
from adaptkit.testing import tiny_decoder
from tests.unit.model.conftest import batch_of, build
from tests.unit.model.test_workflow_properties import ROUNDING, TEXT
from tests.unit.policies.conftest import insertion_of

NEXT = {"input_ids": torch.tensor([[7], [8], [9]])}


@torch.no_grad()
@pytest.mark.parametrize("policy", ["mma", "gated_cross_attention"])
def test_a_copied_cache_is_refused_rather_than_continued_without_its_media(policy):
    _, model = build("llama", insertion=insertion_of(policy), replace_ends=False)
    cache = model(**batch_of(model, padding_side="left").inputs, use_cache=True).past_key_values
    copied = copy.deepcopy(cache)
    with pytest.raises(adaptkit.DataError, match="not filled by this workflow"):
        model(**NEXT, past_key_values=copied)
    with pytest.raises(adaptkit.DataError, match=r"3 rows.* 1 row"):
        model(input_ids=NEXT["input_ids"][:1], past_key_values=cache)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["inner_adapter", "visual_expert"])
def test_other_policies_continue_a_copied_cache(policy):
    _, model = build("llama", insertion=insertion_of(policy), replace_ends=False)
    cache = model(**batch_of(model, padding_side="left").inputs, use_cache=True).past_key_values
    copied = copy.deepcopy(cache)
    expected = model(**NEXT, past_key_values=cache).logits
    assert torch.equal(model(**NEXT, past_key_values=copied).logits, expected)


@pytest.mark.parametrize("policy", ["gated_cross_attention", "controlnet"])
@pytest.mark.parametrize("family", ["mamba", "bamba", "granitemoehybrid"])
def test_state_space_families_keep_their_media_while_decoding(family, policy):
    _, model = build(family, insertion=insertion_of(policy), replace_ends=False)
    inputs = batch_of(model, num_items=(1, 2), padding_side="left").inputs
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached = model.generate(**inputs, **options)
    uncached = model.generate(**inputs, **options, use_cache=False)
    for one, other in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["controlnet", "visual_expert", "mma", "gated_cross_attention"])
def test_a_workflow_without_modalities_runs(policy):
    base = tiny_decoder("llama", num_hidden_layers=4)
    model = adaptkit.adapt(base, {}, insertion_of(policy))
    assert torch.equal(model(**TEXT).logits, base(**TEXT).logits)


@pytest.mark.parametrize(("policy", "compiles"), [("inner_adapter", True), ("controlnet", False), ("mma", False)])
def test_generate_compiles_by_itself_only_what_compiles(policy, compiles):
    _, model = build("llama", insertion=insertion_of(policy), replace_ends=False)
    cache = StaticCache(config=model.language_model.config, max_cache_len=16)
    wanted = GenerationConfig(compile_config=CompileConfig())
    wanted.compile_config._compile_all_devices = True  # the library compiles on accelerators alone
    assert model._valid_auto_compile_criteria({"past_key_values": cache}, wanted) is compiles
