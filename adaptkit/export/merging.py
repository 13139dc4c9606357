"""A workflow as it is to be written: in one dtype, low-rank differences folded in, the user's model untouched."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError
from adaptkit.model.composite import AdaptkitForConditionalGeneration


def copy_to_write(
    model: AdaptkitForConditionalGeneration, dtype: torch.dtype | None = None, *, merge: bool = False
) -> AdaptkitForConditionalGeneration:
    """Copy a workflow's structure; tensors that have to change are new ones, all others stay shared.

    Args:
        model: The workflow; neither it nor its base is modified.
        dtype: Of all floating-point parameters of the copy; as they are where not given.
        merge: Whether to fold low-rank differences into the weights.

    Raises:
        ModelError: A weight to be folded into is quantised.
    """
    memo: dict[int, Any] = {id(t): t for t in chain(model.parameters(), model.buffers())}
    memo |= {id(kept): kept for kept in (model.base, *model.source_encoders.values())}
    duplicate: AdaptkitForConditionalGeneration = copy.deepcopy(model, memo)
    if merge:
        merge_low_rank(duplicate.language_model)
        for encoder in duplicate.encoders.values():
            merge_maps(encoder)
    if dtype is not None:
        _cast(duplicate, dtype)
        # It computes in its own dtype now, not in that of a base beside it
        object.__setattr__(duplicate, "_base", duplicate.language_model)
    duplicate._own_names = duplicate._find_own_names()
    duplicate.eval()
    return duplicate


def low_rank_modules(module: nn.Module) -> dict[str, LoraLayer]:
    """Modules that add a low-rank difference, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, LoraLayer)}


def merge_low_rank(module: nn.Module) -> None:
    """Replace each low-rank difference and the map below it by one map, in place, without writing to any tensor.

    Args:
        module: A structural copy. Parameters that inserted layers share with others in it become their own.
    """
    merge_maps(module)
    seen: set[int] = set()
    ends = {id(end) for end in (module.get_input_embeddings(), module.get_output_embeddings())}  # type: ignore[operator]
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if id(parameter) in seen and id(owner) not in ends:
                setattr(owner, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
            seen.add(id(parameter))


def merge_maps(module: nn.Module) -> None:
    """Replace each low-rank difference and the map below it by one map, in place, in what shares no parameters."""
    for name, wrapped in low_rank_modules(module).items():
        module.set_submodule(name, _merged(name, wrapped))


@torch.no_grad()
def _merged(name: str, wrapped: Any) -> nn.Module:
    base = wrapped.get_base_layer()
    if not isinstance(base, (nn.Linear, Conv1D)) or not base.weight.is_floating_point():
        raise ModelError(
            f"{name} is a {type(base).__name__} over {base.weight.dtype}: a low-rank difference cannot be folded into "
            "quantised weights. Load the workflow on the unquantised base."
        )
    merged = copy.copy(base)
    merged._parameters = dict(base._parameters)
    delta = sum(wrapped.get_delta_weight(adapter).float() for adapter in wrapped.active_adapters)
    merged.weight = nn.Parameter((base.weight.float() + delta).to(base.weight.dtype), requires_grad=False)
    return merged


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Put new tensors in place of parameters of another dtype; tied parameters stay tied."""
    done: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.is_floating_point() and parameter.dtype != dtype:
                if id(parameter) not in done:
                    done[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
                setattr(owner, name, done[id(parameter)])
