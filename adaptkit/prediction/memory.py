"""The memory of a training step, followed allocation by allocation on a model that has no values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError, RecipeError, unknown_name
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.prediction.shadows import MemoryWatch, shadow_play, storages_of
from adaptkit.prediction.trial import as_tried
from adaptkit.stage import StageConfig
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared

STRATEGIES = ("none", "ddp", "zero2", "zero3", "fsdp")

MIN_8BIT_VALUES = 4096
"""Parameters of fewer values have their averages kept in 32 bits by bitsandbytes."""

BLOCK_8BIT = 256
"""Values that share a scale in bitsandbytes' averages."""

REDUCE_BUCKET = 500_000_000
"""Values of gradients that DeepSpeed gathers before it reduces them."""


@dataclass(frozen=True)
class StepMemory:
    """What a training step needs of one device, in bytes.

    Attributes:
        num_frozen: Parameters that do not learn, encoders included.
        num_trained: Parameters that learn.
        frozen: Weights that do not learn.
        trained: Weights that do.
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
    """Follow the allocations of a step on one device.

    Args:
        model: Built of shadows (see `adaptkit.prediction.shadows`); its parts become trainable as `settings` says.
        batch: Keyword arguments of the model: real token ids, masks and labels, shadows of features.
        settings: Of the stage; `torch_compile` changes nothing here, and Liger's loss counts as one in chunks.

    Raises:
        ModelError: What the model allocates depends on values that it computes, as with routed experts, or its family
            cannot be trained so.
    """
    model.set_trainable(settings.train)
    tried = {"torch_compile": False, "loss": "chunked" if settings.loss == "liger" else settings.loss}
    with ExitStack() as stack:
        stack.enter_context(as_tried(model, packing=settings.packing))
        watch = stack.enter_context(shadow_play())
        stack.enter_context(prepared(model, settings.model_copy(update=tried)))
        sizes = _weights(model, watch)
        weights = watch.live
        model.train()
        if settings.gradient_accumulation_steps > 1:
            _as_after_a_batch(model)
        watch.restart()
        _forward_and_backward(model, batch, settings)
        passes = watch.peak - weights
        gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        state, update = _optimizer_memory(model, settings, watch)
        model.zero_grad()
    peak = weights + state + max(passes, gradients + update)
    activations = peak - weights - state - gradients
    if activations < 0:  # gradients come one by one, and the peak lies before the last of them
        gradients, activations = peak - weights - state, 0
    return StepMemory(**sizes, gradients=gradients, optimizer=state, activations=activations, peak=peak)


def _weights(model: AdaptkitForConditionalGeneration, watch: MemoryWatch) -> dict[str, int]:
    modules = (model, model.base, *model.source_encoders.values())
    tensors: dict[int, Tensor] = {id(t): t for module in modules for t in chain(module.parameters(), module.buffers())}
    for storage in storages_of(tensors.values()):
        watch.add(storage)
    own = set(map(id, filter(lambda t: t.requires_grad, tensors.values())))
    parameters = [t for t in tensors.values() if isinstance(t, nn.Parameter)]
    trained = [p for p in parameters if id(p) in own]
    return {
        "num_frozen": sum(_num_values(p) for p in parameters if id(p) not in own),
        "num_trained": sum(p.numel() for p in trained),
        "frozen": sum(t.nbytes for t in tensors.values() if id(t) not in own),
        "trained": sum(p.nbytes for p in trained),
    }


def _num_values(parameter: Tensor) -> int:
    return int(getattr(parameter, "num_packed", parameter.numel()))


def _as_after_a_batch(model: nn.Module) -> None:
    """Gradients of the batches before, on which later ones are added."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def _forward_and_backward(model: Any, batch: Mapping[str, Any], settings: StageConfig) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16, cache_enabled=False):
        loss = model(**batch, num_items_in_batch=1).loss
    (loss / settings.gradient_accumulation_steps).backward()


def _optimizer_memory(model: nn.Module, settings: StageConfig, watch: MemoryWatch) -> tuple[int, int]:
    """Bytes of the state, and what an update takes beyond it."""
    named = settings.optimizer_names()
    if "adamw_8bit" in named:
        if len(named) > 1:
            raise ModelError("memory cannot be predicted of adamw_8bit beside another optimiser.")
        return sum(_averages_in_8_bits(p) for p in model.parameters() if p.requires_grad), 0
    optimizer = build_optimizer(model, settings.train, settings.optimizer)
    before = watch.live
    watch.restart()
    optimizer.step()
    state = watch.live - before
    return state, watch.peak - before - state


def _averages_in_8_bits(parameter: Tensor) -> int:
    if parameter.numel() < MIN_8BIT_VALUES:
        return 8 * parameter.numel()
    return 2 * (parameter.numel() + 4 * math.ceil(parameter.numel() / BLOCK_8BIT))


# -- several devices -------------------------------------------------------------------------------------------------


def check_devices(strategy: str, num_devices: int) -> None:
    """Refuse what is no way to spread a run.

    Raises:
        RecipeError: The strategy is unknown, or does not fit the number of devices.
    """
    if strategy not in STRATEGIES:
        raise RecipeError(unknown_name("strategy", strategy, STRATEGIES))
    if num_devices < 1:
        raise RecipeError(f"{num_devices} devices cannot train: give 1 or more.")
    if (num_devices == 1) != (strategy == "none"):
        raise RecipeError(
            f"strategy {strategy} does not fit {num_devices} device{'s' * (num_devices > 1)}: one takes none, several "
            "take ddp, zero2, zero3 or fsdp."
        )


def spread(step: StepMemory, strategy: str, num_devices: int, largest_unit: int) -> StepMemory:
    """The memory of each of several devices, from that of one.

    Activations stay as they are, since each device has a batch of its own.

    Args:
        step: On one device, with the batch of one device.
        strategy: One of `STRATEGIES`.
        num_devices: How many.
        largest_unit: Bytes of the weights that are gathered together, of a decoder layer for instance.

    Raises:
        RecipeError: The strategy is unknown, or does not fit the number of devices.
    """
    check_devices(strategy, num_devices)
    values = {name: getattr(step, name) for name in ("frozen", "trained", "gradients", "optimizer", "activations")}
    if strategy == "ddp":
        values["gradients"] *= 2  # each lies in a bucket, too
    elif strategy == "zero2":
        bucket = min(step.trained, 4 * REDUCE_BUCKET)
        values["gradients"] = step.gradients // num_devices + bucket
        values["optimizer"] = (step.optimizer + step.trained) // num_devices
    elif strategy in ("zero3", "fsdp"):
        masters = step.trained if strategy == "zero3" else 0
        for name in ("frozen", "trained", "gradients"):
            values[name] = getattr(step, name) // num_devices
        values["optimizer"] = (step.optimizer + masters) // num_devices
        values["activations"] += 2 * largest_unit  # the layer that runs, and the one that is fetched meanwhile
    return replace(step, **values, peak=sum(values.values()))


def largest_unit(layers: Iterable[nn.Module]) -> int:
    """Bytes of the largest of some modules' weights."""
    return max((sum(p.nbytes for p in layer.parameters()) for layer in layers), default=0)
