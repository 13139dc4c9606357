"""Projectors that adaptkit ships: trainable maps from features to the decoder's width."""

from __future__ import annotations

import re
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

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
        bias: Whether the layers have biases.
    """

    intermediate_size: int | None = Field(default=None, ge=1)
    bias: bool = True


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


class QFormerOptions(Options):
    """Options of `q_former`; the defaults are BLIP-2's.

    Attributes:
        num_queries: Positions that every item has afterwards.
        query_size: Width of the queries.
        num_layers: Number of layers.
        num_heads: Heads of the attention; they divide `query_size`.
        intermediate_size: Width of the feed-forward networks; four times `query_size` where not given.
        cross_attention_frequency: Every how many layers one attends to the features, from the first layer on.
        dropout: Share of hidden values and attention that is dropped in training.
    """

    num_queries: PositiveInt = 32
    query_size: PositiveInt = 768
    num_layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    intermediate_size: int | None = Field(default=None, ge=1)
    cross_attention_frequency: PositiveInt = 2
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.query_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide query_size {self.query_size}")
        return self


class CAbstractorOptions(Options):
    """Options of `c_abstractor`; the defaults are Honeybee's.

    Attributes:
        num_queries: Positions of one map afterwards: a square number.
        conv_size: Width of the convolutional blocks.
        depth: Blocks before the pooling, and as many after it.
        mlp_depth: Linear maps at the end.
        map_side: Rows of one square map of features, where an item may consist of several.
        position_grid: Rows of a learned position embedding, resized to the map; none where not given.
    """

    num_queries: PositiveInt = 144
    conv_size: PositiveInt = 1024
    depth: PositiveInt = 3
    mlp_depth: PositiveInt = 2
    map_side: int | None = Field(default=None, ge=1)
    position_grid: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _queries_form_a_square(self) -> Self:
        side = isqrt(self.num_queries)
        if side * side != self.num_queries:
            raise ValueError(
                f"num_queries {self.num_queries} is no square number; the nearest are {side**2} and {(side + 1) ** 2}"
            )
        return self


class PixelShuffleOptions(Options):
    """Options of `pixel_shuffle`.

    Attributes:
        factor: Rows and columns of the squares of features that become one position.
        mlp_depth: Linear maps after that: InternVL has 2, Idefics3 has 1.
        norm: Whether a layer norm precedes them: InternVL has one, Idefics3 has none.
        bias: Whether they have biases: InternVL's have, Idefics3's have none.
        map_side: Rows of one square map of features, where an item may consist of several.
    """

    factor: PositiveInt = 2
    mlp_depth: PositiveInt = 2
    norm: bool = True
    bias: bool = True
    map_side: int | None = Field(default=None, ge=1)


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
        layers.append(nn.Linear(size_in, size_out, bias=options.bias))
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


def build_q_former(options: QFormerOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """BLIP-2's querying transformer and the linear map after it."""
    from adaptkit.projectors.q_former import QFormerProjector

    values = options.model_dump()
    values["intermediate_size"] = options.intermediate_size or 4 * options.query_size
    return QFormerProjector(feature_size, hidden_size, **values)


def build_c_abstractor(options: CAbstractorOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Honeybee's convolutional abstractor."""
    from adaptkit.projectors.c_abstractor import CAbstractor

    return CAbstractor(feature_size, hidden_size, **options.model_dump())


def build_pixel_shuffle(options: PixelShuffleOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Squares of features merged, then an MLP, as in InternVL and Idefics3."""
    from adaptkit.projectors.pixel_shuffle import PixelShuffleProjector

    return PixelShuffleProjector(feature_size, hidden_size, **options.model_dump())


def _num_queries(options: QFormerOptions, positions: int) -> int:
    return options.num_queries


def _pooled(options: CAbstractorOptions, positions: int) -> int:
    from adaptkit.projectors.maps import map_side

    return positions // map_side(positions, options.map_side) ** 2 * options.num_queries


def _merged(options: PixelShuffleOptions, positions: int) -> int:
    from adaptkit.projectors.pixel_shuffle import merged_positions

    return merged_positions(positions, options.factor, options.map_side)


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
    register(
        name="q_former",
        build=build_q_former,
        options=QFormerOptions,
        num_positions=_num_queries,
        description="BLIP-2's querying transformer: learned queries attend to each other and to the features.",
    )
    register(
        name="c_abstractor",
        build=build_c_abstractor,
        options=CAbstractorOptions,
        num_positions=_pooled,
        description="Honeybee's C-Abstractor: convolutions around a pooling of the feature map.",
    )
    register(
        name="pixel_shuffle",
        build=build_pixel_shuffle,
        options=PixelShuffleOptions,
        num_positions=_merged,
        description="Squares of neighbouring features become one position, then an MLP: InternVL's and Idefics3's.",
    )
