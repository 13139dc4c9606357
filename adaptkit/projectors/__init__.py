"""Projectors that adaptkit ships: trainable maps from features to the decoder's width."""

from __future__ import annotations

from adaptkit.hookspecs import ProjectorComponent, hookimpl
from adaptkit.projectors.options import (
    MLP_PATTERN,
    CAbstractorOptions,
    LinearOptions,
    MlpOptions,
    MlpSiluOptions,
    PerceiverResamplerOptions,
    PixelShuffleOptions,
    QFormerOptions,
)


@hookimpl
def register_projectors(register: type[ProjectorComponent]) -> None:
    register(
        name="linear",
        build="adaptkit.projectors.mlp:build_linear",
        options=LinearOptions,
        description="One linear layer.",
    )
    register(
        name="mlpNx_gelu",
        build="adaptkit.projectors.mlp:build_mlp",
        options=MlpOptions,
        pattern=MLP_PATTERN,
        description="N linear layers with GELU between: mlp2x_gelu is LLaVA-1.5's and IAA's.",
    )
    register(
        name="mlp_silu",
        build="adaptkit.projectors.mlp:build_mlp_silu",
        options=MlpSiluOptions,
        description="Two linear layers with SiLU between, through a narrow width: LaVIN's.",
    )
    register(
        name="perceiver_resampler",
        build="adaptkit.projectors.perceiver_resampler:ResamplerProjector",
        options=PerceiverResamplerOptions,
        num_positions=lambda options, positions: options.num_latents,
        description="Flamingo's resampler: learned latents make items of any length equally long.",
    )
    register(
        name="q_former",
        build="adaptkit.projectors.q_former:QFormerProjector",
        options=QFormerOptions,
        num_positions=lambda options, positions: options.num_queries,
        description="BLIP-2's querying transformer: learned queries attend to each other and to the features.",
    )
    register(
        name="c_abstractor",
        build="adaptkit.projectors.c_abstractor:CAbstractor",
        options=CAbstractorOptions,
        num_positions="adaptkit.projectors.c_abstractor:pooled_positions",
        description="Honeybee's C-Abstractor: convolutions around a pooling of the feature map.",
    )
    register(
        name="pixel_shuffle",
        build="adaptkit.projectors.pixel_shuffle:PixelShuffleProjector",
        options=PixelShuffleOptions,
        num_positions="adaptkit.projectors.pixel_shuffle:num_positions",
        description="Squares of neighbouring features become one position, then an MLP: InternVL's and Idefics3's.",
    )
