"""Options of the insertion policies that adaptkit ships."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adaptkit.hookspecs import Options
from adaptkit.placement import PositiveInt


class NoOptions(Options):
    """Nothing to choose beside the placement."""


class DeltaOptions(Options):
    """A low-rank trainable difference from a frozen layer.

    Attributes:
        rank: Of the two factors; parameters grow with it.
        alpha: The difference is scaled by `alpha / rank`; twice the rank where not given.
    """

    rank: PositiveInt
    alpha: float | None = Field(default=None, gt=0)


class InnerAdapterOptions(Options):
    """Options of `inner_adapter`.

    Attributes:
        delta: Makes each insertion layer the frozen layer once more plus a low-rank trainable difference, instead of a
            full copy.
    """

    delta: DeltaOptions | None = None


class LoraOptions(DeltaOptions):
    """Options of `lora`.

    Attributes:
        rank: Of the two factors.
        alpha: The difference is scaled by `alpha / rank`; twice the rank where not given.
        dropout: Share of the inputs that are dropped while training.
        target_modules: Last parts of the names of the linear maps that get an adapter, `[q_proj, v_proj]`; every
            linear map of the chosen layers where not given.
    """

    rank: PositiveInt = 128
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | None = Field(default=None, min_length=1)


class GatedCrossAttentionOptions(Options):
    """Options of `gated_cross_attention`.

    Attributes:
        num_heads: Heads of the cross-attention.
        head_dim: Width of a head.
        ff_mult: Width of the feed-forward networks, in multiples of the decoder's width.
        attend: Whether a token sees the `immediate` item before it alone, as in the paper, or `all_previous` ones.
    """

    num_heads: PositiveInt = 8
    head_dim: PositiveInt = 64
    ff_mult: PositiveInt = 4
    attend: Literal["immediate", "all_previous"] = "immediate"


class VisualExpertOptions(Options):
    """Options of `visual_expert`.

    Attributes:
        output_projection: Whether the attention's output projection has an expert too, as in the released code but not
            in the paper's equation.
    """

    output_projection: bool = False


class MmaOptions(Options):
    """Options of `mma`; the defaults are LaVIN's.

    Attributes:
        hidden_size: Width of the adapters' bottleneck.
        groups: Blocks of the adapters' second maps; divides `hidden_size` and the widths of decoder and encoders.
        scale: Factor of what adapters add.
        temperature: Of the routers; the higher, the more alike the two experts' weights.
        dropout: Share of the bottleneck that is dropped while training.
        encoder_adapter: `router` adapts the encoders too, on copies; `none` leaves them frozen, so that their
            features may be cached.
        before_ffn: Whether the MLP of each layer gets an adapter as well.
    """

    hidden_size: PositiveInt = 8
    groups: PositiveInt = 2
    scale: float = 1.0
    temperature: float = Field(default=10.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    encoder_adapter: Literal["router", "none"] = "router"
    before_ffn: bool = False

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        if self.hidden_size % self.groups:
            raise ValueError(f"groups: {self.groups} does not divide hidden_size {self.hidden_size}")
        return self
