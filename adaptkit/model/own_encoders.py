"""Encoders that a workflow trains: structural copies with weights of their own, or with low-rank differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.interfaces import Encoder
from adaptkit.model.encoders import run_encoder
from adaptkit.surgery import add_low_rank, attention_blocks, own_parameters, structural_copy


def own_encoder(encoder: Encoder, low_rank: Mapping[str, Any] | None = None) -> Encoder:
    """Copy an encoder so that its features can be trained; the original stays as it is.

    Only what takes part in the features is trained. The copy shares everything else with the original: blocks behind
    the layer whose features it gives, a head for classes.

    Args:
        encoder: Frozen.
        low_rank: Rank, alpha, dropout and target modules of low-rank differences (LoRA, arXiv 2106.09685) of its
            linear maps; where not given, every weight is trained, as a float32 copy.

    Raises:
        ModelError: The encoder has no example inputs, by which that is found, or no linear map.
    """
    example = encoder.example_inputs()
    if example is None:
        raise ModelError(
            f"{type(encoder).__name__} has no example_inputs, by which is found what takes part in its features. Add "
            "that method to train it."
        )
    copy = structural_copy(encoder)
    if low_rank is not None:
        # In a list: peft would take an encoder that has a config for a model of transformers
        maps = [f"0.{name}" for name in _called_maps(copy, example)]
        add_low_rank(nn.ModuleList([copy]), among=maps, **low_rank)
        return copy
    own_parameters(copy)
    _share_unused(copy, encoder, example)
    return copy


def _called_maps(encoder: Encoder, example: Tensor) -> list[str]:
    """Names of the linear maps that run as modules: others would leave out what is put beside them."""
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            run_encoder(encoder, example)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(called))


def _share_unused(copy: Encoder, encoder: Encoder, example: Tensor) -> None:
    """Put the original's parameters back where no gradient comes: processes would wait for one forever."""
    own = {name: parameter for name, parameter in copy.named_parameters() if parameter.requires_grad}
    with torch.enable_grad():
        features = run_encoder(copy, example)
        total = torch.stack([item.float().sum() for item in features]).sum()
        gradients: Any = torch.autograd.grad(total, list(own.values()), allow_unused=True)
    for name, gradient in zip(own, gradients, strict=True):
        if gradient is None:
            owner, _, last = name.rpartition(".")
            setattr(copy.get_submodule(owner), last, encoder.get_parameter(name))


def train_own(encoder: nn.Module, own: Collection[int], mode: bool) -> None:
    """Set an encoder to evaluation mode, and what a workflow trains in it to training mode.

    Statistics of batches stay as they are: they are shared with the original.

    Args:
        own: The `id` of each parameter that is the workflow's.
    """
    encoder.eval()
    for module in encoder.modules():
        parameters = list(module.parameters())
        if parameters and all(id(p) in own for p in parameters):
            module.train(mode)
        elif isinstance(module, LoraLayer):
            module.lora_dropout.train(mode)
    for module in encoder.modules():
        if hasattr(module, "running_mean"):
            module.eval()


def distances_from_top(encoder: Encoder) -> dict[str, int]:
    """How many blocks the features of each parameter still pass through, for layer-wise decay of learning rates.

    What comes after the blocks has 0, the last block that runs 1, and what comes before all of them the most.

    Raises:
        ModelError: The encoder has no transformer blocks.
    """
    blocks = attention_blocks(encoder)[: encoder.num_layers]
    depth = {id(p): number for number, block in enumerate(blocks, start=1) for p in block.parameters()}
    top, distances, behind = len(blocks) + 1, {}, False
    for name, parameter in encoder.named_parameters():
        behind = behind or id(parameter) in depth
        distances[name] = top - depth.get(id(parameter), top if behind else 0)
    return distances
