"""The contract checks, run over everything that installed plugins register."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaptkit.hookspecs import Component
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import check_component, check_encoder, check_modality, check_projector

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SOURCES: dict[str, list[Any]] = {
    "image": [NOISE, Image.new("RGB", (3, 5), "red")],
    "series": [NOISE[0], [1.0, 2.0, 4.0]],
}
ITEMS: dict[str, Any] = {
    "clip": Image.fromarray(NOISE),
    "series_patches": get_plugin_manager().build("modality", "series", {}).load(NOISE[0]),
}
"""What a modality reads, and what an encoder encodes: a new one needs a line here."""

OPTIONS: dict[str, dict[str, Any]] = {"world": {"kind": "caption"}}
"""Required options that cannot be any text."""

SMALLER: dict[str, dict[str, Any]] = {"q_former": {"num_layers": 2, "query_size": 24}}
"""Options of projectors that are large by default."""


def of_kind(kind: str) -> Any:
    return pytest.mark.parametrize("component", get_plugin_manager().components(kind), ids=lambda c: c.name)


@of_kind("modality")
def test_modalities(component: Component) -> None:
    assert component.name in SOURCES, f"add sources of the modality {component.name!r} to SOURCES"
    check_modality(component.name, {}, SOURCES[component.name])


@of_kind("encoder")
def test_encoders_as_stand_ins(component: Component, tmp_path: Path) -> None:
    assert component.name in ITEMS, f"add an item of the encoder {component.name!r} to ITEMS"
    given = component.options.model_validate(required_options(component))
    stand_in = component.extra["stand_in"](given, tmp_path / "stand_in")
    check_encoder(component.name, stand_in.model_dump(), ITEMS[component.name])


@of_kind("projector")
def test_projectors(component: Component) -> None:
    name = component.name.replace("N", "2") if component.pattern else component.name
    check_projector(name, SMALLER.get(name, {}))


@pytest.mark.parametrize("kind", ["insertion policy", "data source", "evaluation task"])
def test_other_kinds_are_registered_with_typed_options(kind: str) -> None:
    for component in get_plugin_manager().components(kind):
        check_component(kind, component.name, required_options(component))


def required_options(component: Component) -> dict[str, Any]:
    required = {name: "given" for name, field in component.options.model_fields.items() if field.is_required()}
    return required | {name: value for name, value in OPTIONS.get(component.name, {}).items() if name in required}
