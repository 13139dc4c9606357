"""Projectors that adaptkit ships: trainable maps from features to the decoder's width."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from torch import nn

PositiveInt = Annotated[int, Field(ge=1)]

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


class MlpSiluOptions(Options):
    """Options of `mlp_silu`.

    Attributes:
        hidden_size: Width between the two layers.
    """

    hidden_size: PositiveInt = 128


class PerceiverResamplerOptions(Options):
    """Options of `perceiver_resampler`.

    Attributes:
        depth: Number of layers.
        num_latents: Positions that every item has afterwards.
        num_heads: Heads of the attention.
        head_dim: Width of a head.
        ff_mult: Width of the feed-forward networks, in multiples of the features' width.
    """

    depth: PositiveInt = 6
    num_latents: PositiveInt = 64
    num_heads: PositiveInt = 8
    head_dim: PositiveInt = 64
    ff_mult: PositiveInt = 4


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


def build_mlp_silu(options: MlpSiluOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Two linear layers with SiLU between them: the visual neck of LaVIN."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(feature_size, options.hidden_size), nn.SiLU(), nn.Linear(options.hidden_size, hidden_size)
    )


def build_perceiver_resampler(
    options: PerceiverResamplerOptions, feature_size: int, hidden_size: int, name: str
) -> nn.Module:
    """Flamingo's resampler at the width of the features, and a linear map to the decoder's where the two differ."""
    from adaptkit.projectors.perceiver_resampler import PerceiverResampler, ResamplerProjector

    return ResamplerProjector(PerceiverResampler(feature_size, **options.model_dump()), feature_size, hidden_size)


def _num_latents(options: PerceiverResamplerOptions, positions: int) -> int:
    return options.num_latents


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
    register(
        name="mlp_silu",
        build=build_mlp_silu,
        options=MlpSiluOptions,
        description="Two linear layers with SiLU between, through a narrow width: LaVIN's.",
    )
    register(
        name="perceiver_resampler",
        build=build_perceiver_resampler,
        options=PerceiverResamplerOptions,
        num_positions=_num_latents,
        description="Flamingo's resampler: learned latents make items of any length equally long.",
    )
