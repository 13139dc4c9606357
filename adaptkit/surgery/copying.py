"""Copies of modules that share, or do not share, their tensors with the original."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig

Module = TypeVar("Module", bound=nn.Module)


def structural_copy(module: Module) -> Module:
    """Copy the structure of a module and share its tensors.

    The copy has modules and configs of its own; every parameter and buffer in it is the same tensor object as in
    the original. What is then inserted into or replaced in the copy does not show in the original.

    Args:
        module: Any module; a decoder as loaded, for instance. It is not modified.

    Returns:
        A new module over the same tensors.
    """
    memo: dict[int, Any] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, memo)


def trainable_copy(module: Module, configs_of: nn.Module | None = None) -> Module:
    """Copy a module with tensors of its own: float32 masters that require gradients.

    Args:
        module: The module to copy.
        configs_of: A model whose config objects the copy should keep referring to, so that later changes of
            that config (a new number of layers) reach it.
    """
    memo: dict[int, Any] = {}
    if configs_of is not None:
        memo = {id(config): config for config in _configs(configs_of)}
    duplicate = copy.deepcopy(module, memo)
    for parameter in duplicate.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
    return duplicate


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    found: dict[int, PreTrainedConfig] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, PreTrainedConfig):
                found[id(value)] = value
    return list(found.values())
