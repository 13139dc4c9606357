"""Copies of modules that share, or do not share, their tensors with the original."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import nn
from transformers import PreTrainedConfig

from adaptkit.errors import ModelError
from adaptkit.surgery.arguments import require_module
from adaptkit.surgery.quantization import packed_state, unpacked

Module = TypeVar("Module", bound=nn.Module)


def check_materialised(model: nn.Module, what: str) -> None:
    """Refuse a model some of whose values are not in memory: copies of them could neither be made nor trained.

    Raises:
        ModelError: Tensors are on the meta device.
    """
    absent = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_meta]
    if not absent:
        return
    placed = getattr(model, "hf_device_map", None) or {}
    offloaded = {str(device) for device in placed.values()} & {"cpu", "disk"}
    if offloaded:
        raise ModelError(
            f"{len(absent)} tensors of {what} ({absent[0]}, …) are offloaded to {' and '.join(sorted(offloaded))} by "
            "its device_map, and what a workflow copies and trains must be in memory. Load it on one device, or over "
            "several without offloading; where memory is short, in a smaller dtype, or quantised "
            "(quantization_config=; in a recipe base.quantization: nf4)."
        )
    raise ModelError(
        f"{len(absent)} tensors of {what} ({absent[0]}, …) are on the meta device, without values. Load it with "
        "from_pretrained, outside torch.device('meta')."
    )


def is_outline(model: nn.Module) -> bool:
    """Whether all parameters of a model are on the meta device."""
    return all(parameter.is_meta for parameter in model.parameters())


def structural_copy(module: Module, configs_of: nn.Module | None = None) -> Module:
    """Copy the structure of a module and share its tensors.

    The copy has modules and configs of its own; every parameter and buffer in it is the same tensor object as in
    the original. What is then inserted into or replaced in the copy does not show in the original.

    Args:
        module: Any module; a decoder as loaded, for instance. It is not modified.
        configs_of: A model whose config objects the copy should keep referring to; else it gets its own.

    Returns:
        A new module over the same tensors.
    """
    require_module("module", module)
    memo: dict[int, Any] = {id(t): t for t in chain(module.parameters(), module.buffers(), packed_state(module))}
    memo |= _shared_configs(configs_of)
    return copy.deepcopy(module, memo)


def trainable_copy(module: Module, configs_of: nn.Module | None = None) -> Module:
    """Copy a module with tensors of its own: float32 masters that require gradients, of packed weights unpacked.

    Args:
        module: The module to copy.
        configs_of: A model whose config objects the copy should keep referring to, so that later changes of
            that config (a new number of layers) reach it.
    """
    require_module("module", module)
    duplicate = cast(Module, unpacked(copy.deepcopy(module, _shared_configs(configs_of))))
    for parameter in duplicate.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
    return duplicate


def own_parameters(module: nn.Module) -> None:
    """Replace every parameter of a module by a trainable float32 copy, in place; tied parameters stay tied.

    Args:
        module: A structural copy, which afterwards shares only its buffers with the original.
    """
    require_module("module", module)
    memo: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if id(parameter) not in memo:
                value = parameter.detach().clone()
                value = value.to(torch.float32) if value.is_floating_point() else value
                memo[id(parameter)] = nn.Parameter(value, requires_grad=value.is_floating_point())
            setattr(owner, name, memo[id(parameter)])


def _shared_configs(model: nn.Module | None) -> dict[int, Any]:
    """Memo that makes `copy.deepcopy` keep a model's config objects."""
    if model is None:
        return {}
    values = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value for value in values if isinstance(value, PreTrainedConfig)}
