"""Insertion policies that adaptkit ships, registered like any plugin's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from adaptkit.surgery import InsertionPolicy


class InnerAdapterOptions(Options):
    """The inner adapter of IAA has no options beside its placement."""


class ProjectorOnlyOptions(Options):
    """Nothing is inserted, so there is nothing to choose."""


def _build_inner_adapter(options: InnerAdapterOptions) -> InsertionPolicy:
    from adaptkit.policies.inner_adapter import InnerAdapter

    return InnerAdapter()


def _build_projector_only(options: ProjectorOnlyOptions) -> InsertionPolicy:
    from adaptkit.policies.projector_only import ProjectorOnly

    return ProjectorOnly()


@hookimpl
def register_insertion_policies(register: Register) -> None:
    register(
        name="inner_adapter",
        build=_build_inner_adapter,
        options=InnerAdapterOptions,
        description="IAA scheme (c): a trainable decoder layer after each chosen frozen layer.",
        needs_placement=lambda options: True,
        inserts=lambda options: True,
    )
    register(
        name="projector_only",
        build=_build_projector_only,
        options=ProjectorOnlyOptions,
        description="Nothing inserted: features reach the frozen decoder through the projector alone.",
        needs_placement=lambda options: False,
        inserts=lambda options: False,
    )
