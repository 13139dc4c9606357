"""Projectors that adaptkit ships: trainable maps from features to the decoder's width."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from torch import nn

MLP_PATTERN = r"mlp([1-9]\d?)x_gelu"


class LinearOptions(Options):
    """Options of `linear`."""

    bias: bool = True


class MlpOptions(Options):
    """Options of `mlpNx_gelu`.

    Attributes:
        intermediate_size: Width between the layers; the decoder's width where not given.
    """

    intermediate_size: int | None = Field(default=None, ge=1)


def build_linear(options: LinearOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """One linear layer, `(..., feature_size)` to `(..., hidden_size)`."""
    from torch import nn

    return nn.Linear(feature_size, hidden_size, bias=options.bias)


def build_mlp(options: MlpOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """N linear layers with GELU between them, as in LLaVA-1.5 and IAA section 3.1."""
    from torch import nn

    match = re.fullmatch(MLP_PATTERN, name)
    assert match is not None, name
    intermediate_size = options.intermediate_size or hidden_size
    sizes = [feature_size, *[intermediate_size] * (int(match[1]) - 1), hidden_size]
    layers: list[nn.Module] = []
    for i, (size_in, size_out) in enumerate(pairwise(sizes)):
        layers += [nn.GELU()] if i else []
        layers.append(nn.Linear(size_in, size_out))
    return nn.Sequential(*layers)


@hookimpl
def register_projectors(register: Register) -> None:
    register(name="linear", build=build_linear, options=LinearOptions, description="One linear layer.")
    register(
        name="mlpNx_gelu",
        build=build_mlp,
        options=MlpOptions,
        pattern=MLP_PATTERN,
        description="N linear layers with GELU between: mlp2x_gelu is LLaVA-1.5's and IAA's.",
    )
