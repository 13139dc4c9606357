"""Gated cross-attention and perceiver resampler against OpenFlamingo's own outputs."""

import json

import pytest
import torch
from safetensors.torch import load_file

from adaptkit.policies.gated_cross_attention import GatedCrossAttentionBlock
from adaptkit.policies.options import GatedCrossAttentionOptions
from adaptkit.projectors.perceiver_resampler import PerceiverResampler
from adaptkit.surgery import AdapterContext

# The reference's README measured 2.2e-6 between two implementations of the same equations
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "data" / "parity" / "flamingo"
    if not (folder / "modules.safetensors").is_file():
        pytest.skip(f"no reference tensors at {folder}")
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    tensors = load_file(folder / "modules.safetensors")
    return lambda case: (cases[case], _below(tensors, case))


def _below(tensors, prefix):
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


@torch.no_grad()
@pytest.mark.parametrize("case", ["perceiver", "perceiver_embs"])
def test_resampler(reference, case):
    options, tensors = reference(case)
    names = {"dim": "size", "dim_head": "head_dim", "heads": "num_heads"}
    resampler = PerceiverResampler(**{names.get(key, key): value for key, value in options.items()}).eval()
    resampler.load_state_dict(_below(tensors, "state"))
    torch.testing.assert_close(resampler(tensors["x"]), tensors["y"], **TOLERANCE)


def block_of(reference, case, all_previous=None):
    options, tensors = reference(case)
    if all_previous is None:
        all_previous = not options["only_attend_immediate_media"]
    policy_options = GatedCrossAttentionOptions(
        num_heads=options["heads"],
        head_dim=options["dim_head"],
        ff_mult=options["ff_mult"],
        attend="all_previous" if all_previous else "immediate",
    )
    block = GatedCrossAttentionBlock(policy_options, options["dim"], options["dim_visual"]).eval()
    block.load_state_dict(_below(tensors, "state"))
    return block, tensors


def context_of(tensors, locations, text_time=None):
    media = tensors["media"]
    return AdapterContext(
        locations,
        locations.any(1).long(),
        media=media,
        media_counts=locations.sum(1),
        text_time=locations.long().cumsum(1) if text_time is None else text_time,
    )


CASES = ["xattn_immediate", "xattn_all_previous"]


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_block_where_a_medium_came_before(reference, case):
    block, tensors = block_of(reference, case)
    context = context_of(tensors, tensors["media_locations"])
    after = context.text_time > 0
    assert after.any()
    assert not after.all()
    torch.testing.assert_close(block(tensors["text"], context)[after], tensors["y"][after], **TOLERANCE)
    branch = block.attn(tensors["text"], context)[after]
    torch.testing.assert_close(branch, tensors["y_attn_branch_ungated"][after], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_tokens_before_any_medium_attend_to_none(reference, case):
    """OpenFlamingo lets them see all media evenly, also later ones, where it attends to all previous media."""
    block, tensors = block_of(reference, case)
    context = context_of(tensors, tensors["media_locations"])
    before = context.text_time == 0
    assert not block.attn(tensors["text"], context)[before].any()
    leaks = bool(tensors["y_attn_branch_ungated"][before].any())
    assert leaks == (case == "xattn_all_previous")


@torch.no_grad()
def test_tokens_after_more_placeholders_than_media_attend_to_none(reference):
    """OpenFlamingo lets them see all media evenly; a workflow refuses such a batch before it comes to that."""
    block, tensors = block_of(reference, "xattn_immediate")
    context = context_of(tensors, tensors["media_locations_overflow"])
    known = (context.text_time > 0) & (context.text_time <= tensors["media"].shape[1])
    beyond = context.text_time > tensors["media"].shape[1]
    assert beyond.any()
    ours = block(tensors["text"], context)
    torch.testing.assert_close(ours[known], tensors["y_overflow"][known], **TOLERANCE)
    assert not block.attn(tensors["text"], context)[beyond].any()
    assert not torch.allclose(ours[beyond], tensors["y_overflow"][beyond], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_decoding_steps_see_what_the_prompt_held(reference, case):
    block, tensors = block_of(reference, case)
    locations = tensors["media_locations"]
    counts = locations.sum(1, keepdim=True)
    holds_media = counts.squeeze(1) > 0
    one = block(tensors["text"][:, -1:], context_of(tensors, locations, counts))
    torch.testing.assert_close(one[holds_media], tensors["y_cached_single_token"][holds_media], **TOLERANCE)
    text_time = counts.expand(-1, tensors["text"].shape[1])
    whole = block(tensors["text"], context_of(tensors, locations, text_time))
    torch.testing.assert_close(whole[holds_media], tensors["y_cached_full_text"][holds_media], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_every_token_may_see_all_media(reference, case):
    block, tensors = block_of(reference, case, all_previous=True)
    locations = torch.zeros_like(tensors["media_locations"])
    everything = torch.full(locations.shape, tensors["media"].shape[1])
    ours = block(tensors["text"], context_of(tensors, locations, everything))
    torch.testing.assert_close(ours, tensors["y_no_locations"], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_closed_gates_pass_the_input_on(reference, case):
    block, tensors = block_of(reference, case)
    block.attn_gate.zero_()
    block.ff_gate.zero_()
    assert torch.equal(block(tensors["text"], context_of(tensors, tensors["media_locations"])), tensors["text"])
