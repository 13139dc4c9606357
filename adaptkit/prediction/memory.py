"""The memory of a training step, tracked allocation by allocation on a model that has no values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.prediction.fake import fake_inputs, fake_tensors
from adaptkit.prediction.tracking import MemoryTracker
from adaptkit.prediction.traits import find_traits
from adaptkit.stage import StageConfig
from adaptkit.surgery.quantization import num_values
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared

MIN_8BIT_VALUES = 4096
"""Parameters of fewer values have their averages kept in 32 bits by bitsandbytes."""

BLOCK_8BIT = 256
"""Values that share a scale in bitsandbytes' averages."""


@dataclass(frozen=True)
class StepMemory:
    """What a training step needs of one device, in bytes.

    Attributes:
        num_frozen: Frozen parameters, encoders included.
        num_trained: Trainable parameters.
        frozen: Frozen weights.
        trained: Trainable weights.
        gradients: At the end of the backward pass.
        optimizer: Its state.
        activations: What the peak holds beyond these: activations, logits, temporaries.
        peak: The most that is held at once.
    """

    num_frozen: int
    num_trained: int
    frozen: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


def predict_step(
    model: AdaptkitForConditionalGeneration, batch: Mapping[str, Any], settings: StageConfig
) -> StepMemory:
    """Track the allocations of a step on one device.

    Args:
        model: On the meta device; its parts become trainable as `settings` says.
        batch: Keyword arguments of the model: real token ids, masks and labels, features on the meta device.
        settings: Of the stage; `torch_compile` changes nothing here, and Liger's loss counts as one in chunks.

    Raises:
        ModelError: What the model allocates depends on values that it computes, as with routed experts, or its family
            cannot be trained so.
    """
    model.set_trainable(settings.train)
    traits = find_traits(model.base.config, packing=settings.packing)
    loss = "chunked" if settings.loss == "liger" else settings.loss
    settings = settings.model_copy(update={"torch_compile": False, "loss": loss})
    modules = (model, model.base, *model.source_encoders.values())
    sizes, batch = _sizes(_tensors(modules)), fake_inputs(batch)
    with fake_tensors(*modules), MemoryTracker() as tracker, prepared(model, settings, traits):
        for tensor in _tensors(modules):
            tracker.add(tensor)
        weights = tracker.live
        model.train()
        if settings.num_passes > 1:
            _as_after_a_batch(model)
        tracker.restart()
        _forward_and_backward(model, batch, settings)
        passes = tracker.peak - weights
        gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        state, update = _optimizer_memory(model, settings, tracker)
        model.zero_grad()
    peak = weights + state + max(passes, gradients + update)
    activations = peak - weights - state - gradients
    if activations < 0:  # gradients come one by one, and the peak lies before the last of them
        gradients, activations = peak - weights - state, 0
    return StepMemory(**sizes, gradients=gradients, optimizer=state, activations=activations, peak=peak)


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers, each once."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return list({id(tensor): tensor for tensor in tensors}.values())


def _sizes(tensors: Sequence[Tensor]) -> dict[str, int]:
    trained = [t for t in tensors if t.requires_grad]
    frozen = [t for t in tensors if not t.requires_grad]
    return {
        "num_frozen": sum(num_values(t) for t in frozen if isinstance(t, nn.Parameter)),
        "num_trained": sum(p.numel() for p in trained),
        "frozen": sum(t.nbytes for t in frozen),
        "trained": sum(p.nbytes for p in trained),
    }


def _as_after_a_batch(model: nn.Module) -> None:
    """Gradients of the batches before, on which later ones are added."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def _forward_and_backward(model: Any, batch: Mapping[str, Any], settings: StageConfig) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16, cache_enabled=False):
        loss = model(**batch, num_items_in_batch=1).loss
    (loss / settings.num_passes).backward()


def _optimizer_memory(model: nn.Module, settings: StageConfig, tracker: MemoryTracker) -> tuple[int, int]:
    """Bytes of the state, and what an update takes beyond it."""
    named = settings.optimizer_names()
    if "adamw_8bit" in named:
        if len(named) > 1:
            raise ModelError("memory cannot be predicted of adamw_8bit beside another optimiser.")
        return sum(_averages_in_8_bits(p) for p in model.parameters() if p.requires_grad), 0
    optimizer = build_optimizer(model, settings.train, settings.optimizer)
    before = tracker.live
    tracker.restart()
    optimizer.step()
    state = tracker.live - before
    return state, tracker.peak - before - state


def _averages_in_8_bits(parameter: Tensor) -> int:
    if parameter.numel() < MIN_8BIT_VALUES:
        return 8 * parameter.numel()
    return 2 * (parameter.numel() + 4 * math.ceil(parameter.numel() / BLOCK_8BIT))
