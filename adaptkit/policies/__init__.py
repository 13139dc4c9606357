"""Insertion policies that adaptkit ships, registered like any plugin's."""

from __future__ import annotations

from adaptkit.hookspecs import InsertionPolicyComponent, hookimpl
from adaptkit.policies.options import (
    GatedCrossAttentionOptions,
    InnerAdapterOptions,
    LoraOptions,
    MmaOptions,
    NoOptions,
    VisualExpertOptions,
)


def _mma_adapts_encoders(options: MmaOptions) -> bool:
    return options.encoder_adapter != "none"


@hookimpl
def register_insertion_policies(register: type[InsertionPolicyComponent]) -> None:
    register(
        name="inner_adapter",
        build="adaptkit.policies.inner_adapter:InnerAdapter",
        options=InnerAdapterOptions,
        description="IAA scheme (c): a trainable decoder layer after each chosen frozen layer.",
        needs_placement=True,
    )
    register(
        name="gated_inner_adapter",
        build="adaptkit.policies.gated_inner_adapter:GatedInnerAdapter",
        options=NoOptions,
        description="IAA scheme (b): an insertion layer beside the residual stream, added through a zero gate.",
        needs_placement=True,
    )
    register(
        name="controlnet",
        build="adaptkit.policies.controlnet:ControlNet",
        options=NoOptions,
        description="IAA scheme (a): a side stream through the insertion layers, added through zero gates.",
        needs_placement=True,
    )
    register(
        name="gated_cross_attention",
        build="adaptkit.policies.gated_cross_attention:GatedCrossAttention",
        options=GatedCrossAttentionOptions,
        description="Flamingo: gated cross-attention to media before each chosen layer; the text stays free of them.",
        needs_placement=True,
        feature_mode="context",
        supports_packing=False,
    )
    register(
        name="visual_expert",
        build="adaptkit.policies.visual_expert:VisualExpert",
        options=VisualExpertOptions,
        description="CogVLM: weights of their own for media positions, in attention and feed-forward of each layer.",
        needs_placement=False,
    )
    register(
        name="mma",
        build="adaptkit.policies.mma:Mma",
        options=MmaOptions,
        description="LaVIN: routed adapters before attention, in every layer of decoder and encoder.",
        needs_placement=False,
        adapts_encoders=_mma_adapts_encoders,
        supports_packing=False,
    )
    register(
        name="lora",
        build="adaptkit.policies.lora:Lora",
        options=LoraOptions,
        description="peft LoRA on the linear maps of the workflow's decoder alone (LLaVA-LoRA).",
        needs_placement=False,
    )
    register(
        name="full",
        build="adaptkit.policies.full:Full",
        options=NoOptions,
        description="The whole decoder trained, on a copy of its own (LLaVA); the base stays as it is.",
        needs_placement=False,
    )
    register(
        name="projector_only",
        build="adaptkit.policies.projector_only:ProjectorOnly",
        options=NoOptions,
        description="Nothing inserted: features reach the frozen decoder through the projector alone.",
        needs_placement=False,
        inserts=False,
    )
