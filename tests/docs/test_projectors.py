"""The table of the page on projectors says what the code says, and leaves none out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from adaptkit.plugin_manager import get_plugin_manager
from tests.docs.blocks import REPOSITORY

PAGE = REPOSITORY / "docs" / "explanation" / "projectors.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \|.*\| (?P<positions>\d+) \| (?P<millions>[\d.]+) M \|$", re.MULTILINE)
ROWS = [match.groupdict() for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_row_says_what_the_code_says(row: dict[str, str]) -> None:
    manager = get_plugin_manager()
    component, options = manager.get("projector", row["name"]), manager.options("projector", row["name"], {})
    with torch.device("meta"):
        projector = component.build(options, 1024, 4096, row["name"])
    num_positions: Any = component.num_positions
    assert int(row["positions"]) == num_positions(options, 576)
    assert row["millions"] == f"{sum(parameter.numel() for parameter in projector.parameters()) / 1e6:.1f}"


def test_every_projector_of_adaptkit_has_a_row() -> None:
    ours = {c.name for c in get_plugin_manager().components("projector") if c.plugin == "adaptkit-projectors"}
    assert {"mlpNx_gelu" if row["name"].startswith("mlp2x") else row["name"] for row in ROWS} == ours
