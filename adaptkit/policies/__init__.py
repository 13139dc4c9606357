"""Insertion policies that adaptkit ships, registered like any plugin's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from adaptkit.surgery import InsertionPolicy

PositiveInt = Annotated[int, Field(ge=1)]


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


class LoraOptions(Options):
    """Options of `lora`.

    Attributes:
        rank: Of the two factors.
        alpha: The difference is scaled by `alpha / rank`; twice the rank where not given.
        dropout: Share of the inputs that are dropped while training.
        target_modules: Last parts of the names of the linear maps that get an adapter, `[q_proj, v_proj]`; every
            linear map of the chosen layers where not given.
    """

    rank: PositiveInt = 128
    alpha: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | None = Field(default=None, min_length=1)


def _builder(module: str, policy: str) -> Callable[[Options], InsertionPolicy]:
    """Import a policy when it is built, so that listing policies stays fast."""

    def build(options: Options) -> InsertionPolicy:
        built: InsertionPolicy = getattr(importlib.import_module(f"adaptkit.policies.{module}"), policy)(options)
        return built

    return build


def _always(options: Options) -> bool:
    return True


def _never(options: Options) -> bool:
    return False


@hookimpl
def register_insertion_policies(register: Register) -> None:
    register(
        name="inner_adapter",
        build=_builder("inner_adapter", "InnerAdapter"),
        options=InnerAdapterOptions,
        description="IAA scheme (c): a trainable decoder layer after each chosen frozen layer.",
        needs_placement=_always,
        inserts=_always,
    )
    register(
        name="gated_inner_adapter",
        build=_builder("gated_inner_adapter", "GatedInnerAdapter"),
        options=NoOptions,
        description="IAA scheme (b): an insertion layer beside the residual stream, added through a zero gate.",
        needs_placement=_always,
        inserts=_always,
    )
    register(
        name="controlnet",
        build=_builder("controlnet", "ControlNet"),
        options=NoOptions,
        description="IAA scheme (a): a side stream through the insertion layers, added through zero gates.",
        needs_placement=_always,
        inserts=_always,
    )
    register(
        name="lora",
        build=_builder("lora", "Lora"),
        options=LoraOptions,
        description="peft LoRA on the linear maps of the workflow's decoder alone (LLaVA-LoRA).",
        needs_placement=_never,
        inserts=_always,
    )
    register(
        name="full",
        build=_builder("full", "Full"),
        options=NoOptions,
        description="The whole decoder trained, on a copy of its own (LLaVA); the base stays as it is.",
        needs_placement=_never,
        inserts=_always,
    )
    register(
        name="projector_only",
        build=_builder("projector_only", "ProjectorOnly"),
        options=NoOptions,
        description="Nothing inserted: features reach the frozen decoder through the projector alone.",
        needs_placement=_never,
        inserts=_never,
    )
