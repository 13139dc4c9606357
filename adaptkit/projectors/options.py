"""Options of the projectors that adaptkit ships."""

from __future__ import annotations

from math import isqrt
from typing import Self

from pydantic import Field, model_validator

from adaptkit.hookspecs import Options
from adaptkit.placement import PositiveInt

MLP_PATTERN = r"mlp([1-9]\d?)x_gelu"
"""The names that one registration serves, with the number of layers."""


class LinearOptions(Options):
    """Options of `linear`."""

    bias: bool = True


class MlpOptions(Options):
    """Options of `mlpNx_gelu`.

    Attributes:
        intermediate_size: Width between the layers; the decoder's width where not given.
        bias: Whether the layers have biases.
    """

    intermediate_size: PositiveInt | None = None
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
    intermediate_size: PositiveInt | None = None
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
    map_side: PositiveInt | None = None
    position_grid: PositiveInt | None = None

    @model_validator(mode="after")
    def _queries_form_a_square(self) -> Self:
        side = isqrt(self.num_queries)
        if side * side != self.num_queries:
            raise ValueError(
                f"num_queries {self.num_queries} is not a square number; the nearest are {side**2} and "
                f"{(side + 1) ** 2}"
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
    map_side: PositiveInt | None = None
