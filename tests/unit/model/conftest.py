import pytest
import torch

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.testing.subjects import batch_of, loss_and_gradients, packed

__all__ = ["batch_of", "build", "loss_and_gradients", "packed"]

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


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def base_and_model(family):
    return build(family)
