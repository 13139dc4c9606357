"""Operations of a step, against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.flops import flop_rates

SIZES = {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 256}
POLICIES = {
    "inner_adapter": {"policy": "inner_adapter", "placement": {"layers": [1, 3]}},
    "delta": {"policy": "inner_adapter", "placement": {"layers": [1, 3]}, "delta": {"rank": 4}},
    "lora": {"policy": "lora", "rank": 4},
    "full": {"policy": "full"},
}


def build(family: str, policy: str, *, replace_ends: bool = False):
    base = tiny_decoder(family, **(SIZES if family != "gpt2" else {}), attn_implementation="eager")
    modalities = {"image": {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "placeholder_id": 999}}
    return adaptkit.adapt(base, modalities, POLICIES[policy], replace_ends)


def counted(model, features: torch.Tensor, num_words: int) -> tuple[int, dict[str, int]]:
    positions = features.shape[1]
    input_ids = torch.cat([torch.full((2, positions), 999), torch.randint(3, 200, (2, num_words))], 1)
    labels = input_ids.masked_fill(input_ids == 999, -100)
    labels[:, positions : positions + num_words // 2] = -100
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(
            input_ids=input_ids, labels=labels, features={"image": adaptkit.EncodedFeatures(features)}
        ).loss.backward()
    length = input_ids.shape[1]
    return counter.get_total_flops(), {
        "num_tokens": 2 * length,
        "sum_of_squared_lengths": 2 * length**2,
        "num_supervised": 2 * (num_words - num_words // 2),
    }


@pytest.mark.parametrize(
    ("family", "policy", "train"),
    [
        ("llama", "inner_adapter", ["projector"]),
        ("llama", "inner_adapter", ["insertion"]),
        ("qwen2", "inner_adapter", ["projector", "insertion"]),
        ("gpt2", "lora", ["projector", "insertion"]),
        ("llama", "delta", ["insertion"]),
        ("llama", "full", ["projector", "insertion"]),
    ],
)
def test_agrees_with_torchs_counter(family: str, policy: str, train: list[str]) -> None:
    model = build(family, policy)
    model.set_trainable(train)
    features = torch.randn(2, 16, 32)
    total, sizes = counted(model, features, num_words=24)
    ours = flop_rates(model).total(**sizes, num_features={"image": 32})
    # The counter takes eager attention as a whole square; ours is the causal half
    ours += sizes["sum_of_squared_lengths"] * flop_rates(model).per_squared_length
    # Maps beside each other in the first trained layer need no gradient of their inputs, which ours does not see
    assert ours == pytest.approx(total, rel=0.03)


def test_a_frozen_map_costs_less_than_a_trained_one_and_below_the_lowest_trained_one_least() -> None:
    model = build("llama", "inner_adapter", replace_ends=True)
    rates = {}
    for train in (["insertion"], ["projector"], ["projector", "insertion"], ["projector", "insertion", "ends"]):
        model.set_trainable(train)
        rates["+".join(train)] = flop_rates(model)
    assert rates["insertion"].per_token < rates["projector+insertion"].per_token
    assert rates["projector"].per_token < rates["projector+insertion"].per_token
    assert rates["projector"].per_supervised * 3 == rates["projector+insertion+ends"].per_supervised * 2


def test_a_step_without_gradients_is_a_forward_pass() -> None:
    model = build("llama", "inner_adapter")
    model.set_trainable([])
    forward = flop_rates(model)
    model.set_trainable(["projector"])
    both = flop_rates(model)
    assert both.per_token == 2 * forward.per_token
    assert both.per_squared_length == 3 * forward.per_squared_length
    assert both.per_encoded == forward.per_encoded
