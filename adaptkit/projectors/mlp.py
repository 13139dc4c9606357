"""Linear maps, alone and with activations between them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from adaptkit.projectors.options import MLP_PATTERN, LinearOptions, MlpOptions, MlpSiluOptions


def build_linear(options: LinearOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """One linear layer, `(..., feature_size)` to `(..., hidden_size)`."""
    return nn.Linear(feature_size, hidden_size, bias=options.bias)


def build_mlp(options: MlpOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """N linear layers with GELU between them, as in LLaVA-1.5 and IAA section 3.1."""
    match = re.fullmatch(MLP_PATTERN, name)
    assert match is not None, name
    intermediate_size = options.intermediate_size or hidden_size
    sizes = [feature_size, *[intermediate_size] * (int(match[1]) - 1), hidden_size]
    return nn.Sequential(*linear_layers(sizes, nn.GELU, bias=options.bias))


def build_mlp_silu(options: MlpSiluOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Two linear layers with SiLU between them: the visual neck of LaVIN."""
    return nn.Sequential(*linear_layers([feature_size, options.hidden_size, hidden_size], nn.SiLU))


def linear_layers(sizes: Iterable[int], activation: type[nn.Module], *, bias: bool = True) -> list[nn.Module]:
    """Linear layers from each size to the next, with an activation between them."""
    layers = [[activation(), nn.Linear(*pair, bias=bias)] for pair in pairwise(sizes)]
    return [layer for both in layers for layer in both][1:]
