"""`adaptkit inspect`: the layers of each workflow, and parameters and bytes of each component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptkit.cli.output import json_option, trust_option
from adaptkit.cli.prediction_options import parse_options, prediction_options, refuse_options
from adaptkit.cli.workflow_tables import describe, show_workflows
from adaptkit.errors import ModelError


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
    from adaptkit.model.checkpoint import load_models
    from adaptkit.model.run_folders import workflow_folders

    quiet_libraries()
    target = target if target.exists() else _found(target)
    if not target.is_dir():
        from adaptkit.cli.inspect_recipe import show_recipe

        show_recipe(target, overrides, workflow, as_json, parse_options(prediction))
        return
    if overrides:
        raise click.UsageError(f"{overrides[0]}: only a recipe has settings to override, and this is a checkpoint.")
    refuse_options(prediction, "only the stages of a recipe are predicted, and this is a checkpoint.")
    models = load_models(workflow_folders(target, workflow), trust_remote_code=trust_remote_code)
    show_workflows(((name, describe(model)) for name, model in models), as_json)


def _found(target: Path) -> Path:
    """A recipe that is given by its name, or a checkpoint by its hub id."""
    from adaptkit.files.hub import parse_hub_name
    from adaptkit.model.run_folders import located
    from adaptkit.recipe import find_recipe
    from adaptkit.recipe.finding import SUFFIXES

    found = find_recipe(target)
    if found.exists() or target.suffix in SUFFIXES or parse_hub_name(str(target)) is None:
        return found
    try:
        return located(target)
    except ModelError as error:
        raise ModelError(f"{error} No recipe is called so either; `adaptkit recipes` lists them.") from error
