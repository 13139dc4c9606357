"""A packed row computes what its conversations compute each in a row of its own."""

import pytest
import torch

from adaptkit.errors import ModelError
from adaptkit.model import packing
from adaptkit.model.packing import Segments, packed_attention
from tests.unit.model.conftest import batch_of, build, loss_and_gradients, packed

KEPT_APART = {
    "llama": "segments",
    "qwen2": "segments",
    "mistral": "segments",
    "gpt2": "segments",
    "gemma2": "block_mask",  # its soft-cap needs eager attention
    "stablelm": "block_mask",
    "falcon": "given_mask",
    "gpt_oss": "given_mask",
}
POLICIES = (
    {"policy": "inner_adapter", "placement": {"layers": [1, 3]}, "delta": {"rank": 2}},
    {"policy": "gated_inner_adapter", "placement": {"layers": [1, 3]}},
    {"policy": "controlnet", "placement": {"layers": [1, 3]}},
    {"policy": "visual_expert"},
    {"policy": "lora"},
)


def check_equal(model, loss="plain"):
    """Loss and gradients of padded and of packed rows."""
    batch = batch_of(model, num_items=(1, 2, 0, 1))
    batch.labels[:, 0] = -100
    model.set_trainable(list(model.trainable_parts()))
    model.train()
    expected, gradients = loss_and_gradients(model, {**batch.inputs, "labels": batch.labels})
    with model.prepared_for_training(packing=True, loss=loss):
        method = model._packing
        found, packed_gradients = loss_and_gradients(model, packed(batch.inputs, batch.labels))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        # Sums of some hundred products in another order
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=2e-6, msg=name)
    return method


@pytest.mark.parametrize("family", KEPT_APART)
def test_loss_and_gradients_are_those_of_padded_rows(family):
    _, model = build(family)
    implementation = model.language_model.config._attn_implementation
    assert check_equal(model) == KEPT_APART[family]
    assert model.language_model.config._attn_implementation == implementation
    assert model._packing is None


@pytest.mark.parametrize("insertion", POLICIES, ids=lambda insertion: insertion["policy"])
def test_policies_are_packed(insertion):
    _, model = build("llama", insertion=insertion)
    check_equal(model)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (
            "qwen2_moe",
            {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 4},
        ),
        ("phimoe", {"sliding_window": 64}),
    ],
)
def test_windows_that_only_masks_know_are_kept(family, settings):
    """The rows that a decoder is tried with are shorter than its window."""
    _, model = build(family, **settings)
    model.eval()
    ids = torch.arange(150)[None] % 100 + 20
    alone = model(input_ids=ids).logits[0]
    with model.prepared_for_training(packing=True, loss="plain"):
        model.eval()
        packed = model(input_ids=torch.cat([ids, ids], 1), segment_lengths=[150, 150], use_cache=False).logits[0]
    torch.testing.assert_close(packed[150:], alone, rtol=1e-3, atol=1e-3)


def test_sliding_windows_stay_within_conversations():
    _, model = build("mistral", sliding_window=5)
    assert check_equal(model) == "segments"


@pytest.mark.parametrize("family", ["mamba", "mamba2", "bloom", "llama4_text"])
def test_a_decoder_that_mixes_conversations_is_refused(family):
    base, model = build(family)
    with (
        pytest.raises(ModelError, match=r"conversations apart.*packing: false"),
        model.prepared_for_training(packing=True),
    ):
        pass
    assert base.config._attn_implementation == model.language_model.config._attn_implementation


@pytest.mark.parametrize("setting", ["index_topk", "keep_window_size", "attn_temperature_tuning"])
def test_a_decoder_that_mixes_long_conversations_alone_is_refused(setting):
    _, model = build("llama", **{setting: 2048})
    with pytest.raises(ModelError, match=r"(of|in) the row\)"), model.prepared_for_training(packing=True):
        pass


@pytest.mark.parametrize("policy", ["mma", "gated_cross_attention"])
def test_policies_that_need_rows_of_their_own_are_refused(policy):
    placement = {} if policy == "mma" else {"placement": {"layers": [1]}}
    _, model = build("llama", insertion={"policy": policy, **placement})
    with (
        pytest.raises(ModelError, match="needs a row for each conversation"),
        model.prepared_for_training(packing=True),
    ):
        pass


def test_a_packed_batch_outside_training_is_an_error():
    _, model = build("llama")
    batch = batch_of(model)
    with pytest.raises(ModelError, match="prepared_for_training"):
        model(**packed(batch.inputs, batch.labels))


def test_a_method_that_lets_conversations_see_each_other_is_not_taken(monkeypatch):
    _, model = build("llama")
    stock = packing.AttentionInterface()["sdpa"]
    monkeypatch.setitem(
        packing.AttentionInterface._global_mapping,
        packing.PACKED,
        lambda *args, packed_segments, **kw: stock(*args, **kw),
    )
    with model.prepared_for_training(packing=True):
        assert model._packing == "block_mask"


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_is_that_under_a_mask_of_blocks(kv_heads, window):
    torch.manual_seed(0)
    lengths = [5, 1, 9, 4, 17]
    query = torch.randn(1, 4, sum(lengths), 8)
    key, value = (torch.randn(1, kv_heads, sum(lengths), 8) for _ in range(2))
    module = torch.nn.Module()
    segments = Segments.of(lengths, torch.device("cpu"))
    found, _ = packed_attention(module, query, key, value, None, sliding_window=window, packed_segments=segments)
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    mask = (number[:, None] == number) & (place[:, None] >= place)
    if window is not None:
        mask &= place[:, None] - place < window
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_attention_that_is_not_known_is_refused():
    segments = Segments.of([2, 3], torch.device("cpu"))
    tensor = torch.zeros(1, 1, 5, 2)
    with pytest.raises(ModelError, match="softcap"):
        packed_attention(torch.nn.Module(), tensor, tensor, tensor, None, softcap=30.0, packed_segments=segments)
