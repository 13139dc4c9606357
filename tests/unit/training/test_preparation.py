"""What a stage switches on changes how a step is computed, not what it gives, and goes off again."""

import shutil
import sys

import pytest
import torch

from adaptkit.errors import ModelError
from adaptkit.training.preparation import prepared
from tests.stages import stage_config
from tests.unit.model.conftest import batch_of, build, loss_and_gradients, packed

SETTINGS = {
    "checkpointed": {"gradient_checkpointing": True},
    "selectively checkpointed": {"gradient_checkpointing": "selective"},
    "packed and checkpointed": {"gradient_checkpointing": True, "packing": True},
    "packed and selectively checkpointed": {"gradient_checkpointing": "selective", "packing": True},
}


def one_step(model, batch, **settings):
    model.set_trainable(list(model.trainable_parts()))
    with prepared(model, stage_config(name="stage", train=("projector",), **settings)):
        model.train()
        return loss_and_gradients(model, batch)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_gradients_are_those_of_a_plain_step(settings):
    _, model = build("llama")
    batch = batch_of(model, num_items=(1, 2, 0, 1))
    batch.labels[:, 0] = -100
    padded = {**batch.inputs, "labels": batch.labels}
    expected, gradients = one_step(model, padded)
    found, found_gradients = one_step(
        model, packed(batch.inputs, batch.labels) if settings.get("packing") else padded, **settings
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=2e-6, msg=name)
    assert not model.training
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_layers_that_are_gone_through_beforehand_are_recomputed_in_bfloat16():
    base, model = build("llama", insertion={"policy": "mma"}, replace_ends=False)
    batch = batch_of(model, num_items=(1, 0))
    padded = {**batch.inputs, "labels": batch.labels}
    base.to(torch.bfloat16)
    losses = [float(one_step(model, padded, **settings)[0]) for settings in ({}, SETTINGS["selectively checkpointed"])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the tracer looks at every tensor's
def test_layers_are_compiled_for_the_stage_alone(monkeypatch):
    _, model = build("llama")
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_module(self, backend=backend, **options)
    )
    monkeypatch.setenv("CXX", sys.executable)  # no compiler is needed for this backend
    batch = batch_of(model)
    padded = {**batch.inputs, "labels": batch.labels}
    expected, gradients = one_step(model, padded)
    found, found_gradients = one_step(model, padded, torch_compile=True)
    assert 1 <= len(graphs) < 6  # six layers, alike
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradients, gradients)
    num_graphs = len(graphs)
    one_step(model, padded)
    assert len(graphs) == num_graphs


def test_compiling_without_a_compiler_is_an_error(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"needs a C\+\+ compiler"):
        one_step(build("llama")[1], {}, torch_compile=True)


class Saved:
    """Counts the values that are kept for the backward pass."""

    def __init__(self):
        self.count = 0

    def pack(self, tensor):
        self.count += tensor.numel()
        return tensor


def kept(model, batch, **settings):
    model.set_trainable(list(model.trainable_parts()))
    saved = Saved()
    with prepared(model, stage_config(name="stage", train=("projector",), **settings)):
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            model(**batch)
    return saved.count


def test_checkpointing_keeps_less():
    _, model = build("llama")
    batch = batch_of(model)
    padded = {**batch.inputs, "labels": batch.labels}
    assert kept(model, padded, gradient_checkpointing=True) < 0.5 * kept(model, padded)


def test_nothing_below_the_lowest_trainable_tensor_takes_part_in_the_backward_pass():
    """With a frozen projector and embedding, layers before the first inserted one keep nothing."""
    _, late = build("llama", insertion={"policy": "inner_adapter", "placement": {"layers": [3]}}, replace_ends=False)
    _, early = build("llama", insertion={"policy": "inner_adapter", "placement": {"layers": [0]}}, replace_ends=False)
    counts = []
    for model in (late, early):
        batch = batch_of(model)
        model.set_trainable(["insertion"])
        saved = Saved()
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            model(**batch.inputs, labels=batch.labels)
        counts.append(saved.count)
    assert counts[0] < 0.6 * counts[1]
