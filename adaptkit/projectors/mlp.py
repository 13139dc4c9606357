"""Linear maps, alone and with activations between them."""

from __future__ import annotations

import re
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
    layers: list[nn.Module] = []
    for i, (size_in, size_out) in enumerate(pairwise(sizes)):
        layers += [nn.GELU()] if i else []
        layers.append(nn.Linear(size_in, size_out, bias=options.bias))
    return nn.Sequential(*layers)


def build_mlp_silu(options: MlpSiluOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Two linear layers with SiLU between them: the visual neck of LaVIN."""
    return nn.Sequential(
        nn.Linear(feature_size, options.hidden_size), nn.SiLU(), nn.Linear(options.hidden_size, hidden_size)
    )
