from types import SimpleNamespace

import pytest
import torch

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder

FAMILIES = ("llama", "qwen2", "mistral", "gpt2")
PLACEHOLDER_ID = 999  # outside every tiny vocabulary


def build(family, *, insertion=None, replace_ends=True, seed=0, **config):
    """A base of four layers and a workflow on it, the inserted layers moved off their starting point."""
    config.setdefault("num_hidden_layers", 4)
    base = tiny_decoder(family, seed=seed, **config)
    torch.manual_seed(seed + 1)
    model = adaptkit.adapt(
        base,
        modalities={
            "image": {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "placeholder_id": PLACEHOLDER_ID}
        },
        insertion=insertion or {"policy": "inner_adapter", "placement": {"layers": [1, 3]}},
        replace_ends=replace_ends,
    )
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.02 * torch.randn_like(tensor))
    return base, model


def batch_of(model, *, num_items=(1, 2, 0), padding_side="right", seed=3):
    """Rows with that many images each, padded."""
    generator = torch.Generator().manual_seed(seed)
    in_context = model.policy.feature_mode == "context"
    positions = 1 if in_context else model.encode("image", torch.zeros(1, 3, 32, 32)).shape[1]
    rows = []
    for row, num in enumerate(num_items):
        words = torch.randint(3, 40, (6 + row,), generator=generator).tolist()
        rows.append([*words[:2], *([PLACEHOLDER_ID] * positions + words[2:4]) * num, *words[4:]])
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        place = slice(width - len(ids), width) if padding_side == "left" else slice(len(ids))
        input_ids[row, place] = torch.tensor(ids)
        attention_mask[row, place] = 1
    pixel_values = torch.randn(sum(num_items), 3, 32, 32, generator=generator)
    labels = input_ids.masked_fill((attention_mask == 0) | (input_ids == PLACEHOLDER_ID), -100)
    labels[:, : width // 3] = -100
    return SimpleNamespace(
        inputs={"input_ids": input_ids, "attention_mask": attention_mask, "features": {"image": pixel_values}},
        labels=labels,
        rows=rows,
        num_items=num_items,
        pixel_values=pixel_values,
    )


def packed(inputs, labels):
    """Rows padded on the right, without their padding, one after the other."""
    real = inputs["attention_mask"] == 1
    return {
        "input_ids": inputs["input_ids"][real].unsqueeze(0),
        "labels": labels[real].unsqueeze(0),
        "features": inputs["features"],
        "segment_lengths": real.sum(1).tolist(),
    }


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def base_and_model(family):
    return build(family)
