"""On a GPU: packed rows, fused losses, compiled layers and the untouched base. Run with `pytest -m integration`."""

import importlib.util

import pytest
import torch

from adaptkit.model import packing
from adaptkit.training.preparation import prepared
from tests.stages import stage_config
from tests.unit.model.conftest import batch_of, build, loss_and_gradients, packed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def on_gpu(value):
    if isinstance(value, dict):
        return {name: on_gpu(item) for name, item in value.items()}
    return value.cuda() if isinstance(value, torch.Tensor) else value


def workflow(family="llama"):
    base, model = build(family, hidden_size=64, num_attention_heads=4, head_dim=16)
    model.cuda()
    model.set_trainable(list(model.trainable_parts()))
    return base, model


def one_step(model, batch, bf16=False, **settings):
    with prepared(model, stage_config(name="stage", train=("projector",), bf16=bf16, **settings)):
        model.train()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            return loss_and_gradients(model, batch)


def padded_and_packed(model):
    batch = batch_of(model, num_items=(1, 2, 0, 1))
    batch.labels[:, 0] = -100
    return on_gpu({**batch.inputs, "labels": batch.labels}), on_gpu(packed(batch.inputs, batch.labels))


def relative(found, expected):
    """Distance of all gradients over their size."""
    distance = sum(float((found[name] - gradient).square().sum()) for name, gradient in expected.items())
    return (distance / sum(float(gradient.square().sum()) for gradient in expected.values())) ** 0.5


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_packed_rows_in_float32(family):
    _, model = workflow(family)
    batch, row = padded_and_packed(model)
    expected, gradients = one_step(model, batch)
    found, found_gradients = one_step(model, row, packing=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert relative(found_gradients, gradients) < 1e-4


@pytest.mark.parametrize("checkpointing", [False, True, "selective"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_packed_rows_in_bfloat16_take_flash_attention(family, checkpointing, monkeypatch):
    _, model = workflow(family)
    calls = []
    varlen = packing._varlen
    monkeypatch.setattr(packing, "_varlen", lambda *args: calls.append(1) or varlen(*args))
    batch, row = padded_and_packed(model)
    _, exact = one_step(model, batch)
    expected, gradients = one_step(model, batch, bf16=True)
    found, found_gradients = one_step(model, row, bf16=True, packing=True, gradient_checkpointing=checkpointing)
    assert calls
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    # As near to the exact gradients as padded rows in bfloat16 are
    assert relative(found_gradients, exact) < 1.5 * relative(gradients, exact)


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
@pytest.mark.parametrize("bf16", [False, True])
def test_ligers_kernel_gives_the_loss_and_its_gradients(bf16):
    _, model = workflow()
    batch, _ = padded_and_packed(model)
    expected, gradients = one_step(model, batch, bf16, loss="plain")
    found, found_gradients = one_step(model, batch, bf16, loss="liger")
    torch.testing.assert_close(found, expected, rtol=1e-2 if bf16 else 1e-5, atol=1e-5)
    assert relative(found_gradients, gradients) < (5e-2 if bf16 else 1e-4)


@pytest.mark.filterwarnings("default")  # the compiler has many
def test_compiled_layers_on_packed_rows():
    _, model = workflow()
    _, row = padded_and_packed(model)
    expected, gradients = one_step(model, row, packing=True)
    found, found_gradients = one_step(model, row, packing=True, torch_compile=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert relative(found_gradients, gradients) < 1e-3


def test_text_is_untouched_by_a_step():
    base, model = workflow()
    ids = torch.arange(3, 40, device="cuda").unsqueeze(0)
    with torch.no_grad():
        before = base(ids).logits
    batch, _ = padded_and_packed(model)
    one_step(model, batch, bf16=True)
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True).step()
    with torch.no_grad():
        assert torch.equal(base(ids).logits, before)


def test_cached_generation_is_uncached_generation():
    _, model = workflow()
    batch, _ = padded_and_packed(model)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    answers = [model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=use) for use in (True, False)]
    assert torch.equal(*answers)
