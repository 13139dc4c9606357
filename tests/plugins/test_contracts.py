"""The contract checks, run over everything that installed plugins register."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptkit.hookspecs import Component
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import (
    Example,
    check_component,
    check_data_source,
    check_encoder,
    check_modality,
    check_policy,
    check_projector,
)
from adaptkit.testing.examples import examples_of

OPTIONS: dict[str, dict[str, Any]] = {"answers": {"datasets": ["given"]}}
"""Required options that cannot be any text."""

SMALLER: dict[str, dict[str, Any]] = {"q_former": {"num_layers": 2, "query_size": 24}}
"""Options of projectors that are large by default."""


def of_kind(kind: str) -> Any:
    return pytest.mark.parametrize("component", get_plugin_manager().components(kind), ids=lambda c: c.name)


def example_of(component: Component, directory: Path) -> Example:
    """The first that its plugin gives; all of them are the matter of the plugin's own tests."""
    examples = examples_of(component, directory)
    assert examples, f"the plugin of the {component.kind} {component.name!r} registers no examples"
    return examples[0]


@of_kind("modality")
def test_modalities(component: Component, tmp_path: Path) -> None:
    example = example_of(component, tmp_path)
    check_modality(component.name, example.options, example.items, example.bad_items)


@of_kind("encoder")
def test_encoders_as_stand_ins(component: Component, tmp_path: Path) -> None:
    example = example_of(component, tmp_path)
    given = component.options.model_validate(dict(example.options))
    stand_in = component.stand_in(given, tmp_path / "stand_in")
    check_encoder(component.name, stand_in.model_dump(), example.items[0], other_items=example.items[1:])


@of_kind("projector")
def test_projectors(component: Component) -> None:
    name = component.name.replace("N", "2") if component.pattern else component.name
    check_projector(name, SMALLER.get(name, {}))


@of_kind("insertion policy")
def test_policies(component: Component) -> None:
    check_policy(component.name, {}, families=["llama"])


@of_kind("data source")
def test_data_sources(component: Component, tmp_path: Path) -> None:
    for example in examples_of(component, tmp_path):
        check_data_source(component.name, example.options, example.items, example.bad_items)


@of_kind("evaluation task")
def test_tasks_are_registered_with_typed_options(component: Component) -> None:
    check_component("evaluation task", component.name, required_options(component))


def required_options(component: Component) -> dict[str, Any]:
    required = {name: "given" for name, field in component.options.model_fields.items() if field.is_required()}
    return required | {name: value for name, value in OPTIONS.get(component.name, {}).items() if name in required}
