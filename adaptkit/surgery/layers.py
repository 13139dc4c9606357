"""A layer's parts, found in the layer itself: its attention and its MLP."""

from __future__ import annotations

import re

from torch import nn

from adaptkit.errors import ModelError
from adaptkit.surgery.arguments import require_module

MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""What transformers' families call the second half of a layer."""


def attention_of(layer: nn.Module) -> nn.Module:
    """The attention module of a transformer layer: its one child whose class is an attention.

    Args:
        layer: A decoder layer, or a block of an encoder. Its children are looked at, not theirs.

    Raises:
        ModelError: There is none (a recurrent or convolutional layer), or there are several (cross-attention).
    """
    require_module("layer", layer)
    found = list(filter(_is_attention, layer.children()))
    return _only(found, "attention", layer)


def mlp_of(layer: nn.Module) -> nn.Module:
    """The MLP, or mixture of experts, of a transformer layer, where it is a module of its own.

    Args:
        layer: A decoder layer, or a block of an encoder.

    Raises:
        ModelError: There is none (OPT calls its two linear maps from the layer), or there are several.
    """
    require_module("layer", layer)
    return _only([child for name, child in layer.named_children() if name in MLP_NAMES], "MLP", layer)


def attention_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The transformer blocks of an encoder in the order of its modules: entries of a list that have an attention.

    Raises:
        ModelError: There is none, as in a convolutional network.
    """
    require_module("encoder", encoder)
    blocks: list[nn.Module] = []
    for listing in encoder.modules():
        if isinstance(listing, (nn.ModuleList, nn.Sequential)):
            blocks += [block for block in listing if any(map(_is_attention, block.children()))]
    if not blocks:
        raise ModelError(f"{type(encoder).__name__} has no transformer blocks, so this policy cannot adapt it.")
    return blocks


def _is_attention(module: nn.Module) -> bool:
    return re.search(r"Attention\d*$", type(module).__name__) is not None  # FalconFlashAttention2 too


def _only(found: list[nn.Module], what: str, layer: nn.Module) -> nn.Module:
    if len(found) == 1:
        return found[0]
    children = ", ".join(f"{name} ({type(child).__name__})" for name, child in layer.named_children())
    raise ModelError(
        f"{type(layer).__name__} has {len(found) or 'no'} {what} module{'s' * (len(found) > 1)}, so this policy cannot "
        f"adapt it. A layer must have exactly one; this one's parts are {children}."
    )
