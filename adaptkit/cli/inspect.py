"""`adaptkit inspect`: the layers of each workflow, and parameters and bytes of each component."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from adaptkit.cli.output import json_option, trust_option
from adaptkit.cli.prediction_options import parse_options, prediction_options, refuse_options
from adaptkit.errors import ModelError, unknown_name
from adaptkit.terminal import Console, echo_json, styled

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
}


@click.command()
@click.argument("target", metavar="RECIPE|CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[a.b.c=value]...", nargs=-1)
@click.option("--workflow", help="Only this workflow.")
@json_option()
@trust_option()
@prediction_options
def inspect(
    target: Path,
    overrides: tuple[str, ...],
    workflow: str | None,
    as_json: bool,
    trust_remote_code: bool,
    **prediction: Any,
) -> None:
    """Show layers, parameters and bytes of a recipe or checkpoint.

    Of a recipe nothing is loaded but configs, and the memory and time of each stage are predicted. Its settings are
    overridden by dotted keys: base.quantization=nf4.

    Each layer is frozen (the base's own tensors), adapted (frozen, with something trainable in it), inserted,
    replaced or unfrozen. Frozen components are counted in full
    for each workflow, although workflows share them in memory.
    """
    from adaptkit.cli.quiet import quiet_libraries

    quiet_libraries()
    target = target if target.exists() else _found(target)
    if not target.is_dir():
        from adaptkit.cli.inspect_recipe import show_recipe

        show_recipe(target, overrides, workflow, as_json, parse_options(prediction))
        return
    if overrides:
        raise click.UsageError(f"{overrides[0]}: only a recipe has settings to override, and this is a checkpoint.")
    refuse_options(prediction, "only the stages of a recipe are predicted, and this is a checkpoint.")
    show_workflows(((name, describe(model)) for name, model in _models(target, workflow, trust_remote_code)), as_json)


def _found(target: Path) -> Path:
    """A recipe that is given by its name, or a checkpoint by its hub id."""
    from adaptkit.recipe import find_recipe
    from adaptkit.runs import located

    found = find_recipe(target)
    if not found.exists():
        with suppress(ModelError):
            return located(target)
    return found


def show_workflows(described: Iterable[tuple[str, dict[str, Any]]], as_json: bool) -> None:
    """Print workflows as tables, each as soon as it is known, or all as JSON."""
    if as_json:
        echo_json(dict(described))
        return
    console = Console()
    for name, description in described:
        console.print(_layer_table(name, description["layers"]))
        console.print(_component_table(name, description["components"]))


def _models(
    target: Path, workflow: str | None, trust_remote_code: bool
) -> Iterator[tuple[str, AdaptkitForConditionalGeneration]]:
    """The workflows of a checkpoint or a run directory, one base and its encoders shared by all."""
    from adaptkit.model.checkpoint import load
    from adaptkit.runs import workflow_folders

    folders = workflow_folders(target)
    if workflow is not None and workflow not in folders:
        raise ModelError(f"{target}: {unknown_name('workflow', workflow, folders)}")
    folders = {workflow: folders[workflow]} if workflow else folders
    base, encoders = None, None
    for name, folder in folders.items():
        model = load(folder, base=base, encoders=encoders, trust_remote_code=trust_remote_code)
        base, encoders = model.base, model.source_encoders
        yield name, model


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
