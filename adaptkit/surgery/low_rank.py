"""Low-rank differences of linear maps, by peft."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError, unknown_name


def add_low_rank(
    layer: nn.Module,
    *,
    among: Collection[str] | None = None,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: Collection[str] | None = None,
) -> None:
    """Give linear maps of a layer trainable low-rank differences, in place; their own weights stay shared and frozen.

    Args:
        layer: A module of a structural copy: a decoder layer, or an encoder.
        among: Names of the maps that come into question; all linear maps where not given.
        rank: Of the factors, which are float32.
        alpha: The difference is scaled by `alpha / rank`; `2 * rank` where not given.
        dropout: On the input of the difference, while training.
        target_modules: Last parts of the names of the maps; all linear maps where not given.

    Raises:
        ModelError: The layer has no linear map, or none of a given name.
    """
    names = [name for name, module in layer.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    names = [name for name in names if among is None or name in among]
    known = sorted({name.rpartition(".")[2] for name in names})
    if target_modules is not None:
        for target in target_modules:
            if target not in known:
                raise ModelError(f"target_modules: {unknown_name('linear map that can be adapted', target, known)}")
        names = [name for name in names if name.rpartition(".")[2] in target_modules]
    if not names:
        raise ModelError(f"{type(layer).__name__} has no linear map that could get a low-rank difference.")
    conv = {isinstance(layer.get_submodule(name), Conv1D) for name in names}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else 2 * rank,
        lora_dropout=dropout,
        target_modules=names,
        fan_in_fan_out=conv == {True},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")  # peft sets it right by itself
        inject_adapter_in_model(config, layer)
    for parameter in low_rank_parameters(layer):
        parameter.data = parameter.data.to(torch.float32)


def low_rank_parameters(module: nn.Module) -> list[Any]:
    """The factors that `add_low_rank` put into a module."""
    wrapped = (m for m in module.modules() if isinstance(m, LoraLayer))
    return [p for m in wrapped for name in ("lora_A", "lora_B") for p in getattr(m, name).parameters()]
