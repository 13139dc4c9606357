"""The memory of each of several devices, from that of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from adaptkit.errors import RecipeError, unknown_name
from adaptkit.prediction.memory import StepMemory

STRATEGIES = ("none", "ddp", "zero2", "zero3", "fsdp")

REDUCE_BUCKET = 500_000_000
"""Values of gradients that DeepSpeed gathers before it reduces them."""


def check_devices(strategy: str, num_devices: int) -> None:
    """Refuse a strategy that does not fit the number of devices.

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


def memory_per_device(step: StepMemory, strategy: str, num_devices: int, largest_unit: int) -> StepMemory:
    """The memory of each of several devices, from that of one.

    Activations stay as they are, since each device has a batch of its own.

    Args:
        step: On one device, with the batch of one device.
        largest_unit: Bytes of the weights that are gathered together, of a decoder layer for instance.

    Raises:
        RecipeError: The strategy is unknown, or does not fit the number of devices.
    """
    check_devices(strategy, num_devices)
    if strategy == "none":
        return step
    values = {name: getattr(step, name) for name in ("frozen", "trained", "gradients", "optimizer", "activations")}
    if strategy == "ddp":
        values["gradients"] *= 2  # each lies in a bucket, too
    elif strategy == "zero2":
        bucket = min(step.trained, 4 * REDUCE_BUCKET)
        values["gradients"] = step.gradients // num_devices + bucket
        values["optimizer"] = (step.optimizer + step.trained) // num_devices
    else:
        masters = step.trained if strategy == "zero3" else 0
        for name in ("frozen", "trained", "gradients"):
            values[name] = getattr(step, name) // num_devices
        values["optimizer"] = (step.optimizer + masters) // num_devices
        values["activations"] += 2 * largest_unit  # the layer that runs, and the one that is fetched meanwhile
    return replace(step, **values, peak=sum(values.values()))


def largest_unit(layers: Iterable[nn.Module]) -> int:
    """Bytes of the largest of some modules' weights."""
    return max((sum(p.nbytes for p in layer.parameters()) for layer in layers), default=0)
