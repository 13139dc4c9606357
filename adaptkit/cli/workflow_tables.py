"""Workflows as tables: their layers, and parameters and bytes of their components."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from adaptkit.cli.terminal import Console, echo_json, styled

if TYPE_CHECKING:
    from adaptkit.model.composite import AdaptkitForConditionalGeneration

COLORS = {
    "frozen": "blue",
    "frozen encoder": "blue",
    "inserted": "green",
    "projector": "green",
    "adapted": "cyan",
    "replaced": "yellow",
    "unfrozen": "yellow",
    "trained": "yellow",
}


def show_workflows(described: Iterable[tuple[str, dict[str, Any]]], as_json: bool) -> None:
    """Print workflows as tables, each as soon as it is known, or all as JSON."""
    if as_json:
        echo_json(dict(described))
        return
    console = Console()
    for name, description in described:
        console.print(_layer_table(name, description["layers"]))
        console.print(_component_table(name, description["components"]))


def describe(model: AdaptkitForConditionalGeneration) -> dict[str, Any]:
    """Layers and components of a workflow, as values for JSON."""
    from adaptkit.model.inspection import describe_components, describe_layers

    return {"layers": describe_layers(model), "components": [asdict(row) for row in describe_components(model)]}


def _layer_table(workflow: str, layers: list[dict[str, Any]]) -> Table:
    table = Table("", "layer", "state", "made from", title=f"Workflow {workflow}: layers", title_justify="left")
    for row in layers:
        color = COLORS[row["kind"]]
        source = "" if row["source"] is None else f"layer {row['source']} of the base"
        table.add_row(styled("■", color), row["name"], styled(row["kind"], color), source)
    return table


def _component_table(workflow: str, components: list[dict[str, Any]]) -> Table:
    table = Table("component", "state", title=f"Workflow {workflow}: components", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("MB", justify="right")
    for row in components:
        state = styled(row["state"], COLORS[row["state"]])
        table.add_row(row["name"], state, f"{row['num_parameters']:,}", f"{row['num_bytes'] / 1e6:,.1f}")
    trained = [row for row in components if not row["state"].startswith("frozen")]
    table.add_section()
    parameters, size = (sum(row[key] for row in trained) for key in ("num_parameters", "num_bytes"))
    table.add_row("the workflow's own", "trainable", f"{parameters:,}", f"{size / 1e6:,.1f}")
    return table
