"""`adaptkit data plan`: what a recipe needs, and what is missing here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.output import FILE, json_option
from adaptkit.cli.terminal import echo, echo_json
from adaptkit.errors import join_lines

if TYPE_CHECKING:
    from adaptkit.data_tools.plan import DataPlan, PlannedDataset, PlannedModel


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.argument("overrides", metavar="[a.b.c=value]...", nargs=-1)
@click.option("--sources", multiple=True, type=FILE, help="YAML file of further public datasets; may be repeated.")
@json_option()
def plan(recipe: str, overrides: tuple[str, ...], sources: tuple[Path, ...], as_json: bool) -> None:
    """Say what a recipe needs, and what is missing here.

    For each dataset: what it is, licence and size as published, where its release lives, the layout of its folder, and
    the commands that make the file that the recipe reads; for base and encoders: whether their weights are here.
    Nothing is fetched. A dataset names its public source under `source`.
    """
    from adaptkit.data_tools.plan import load_registry, plan_data
    from adaptkit.recipe import find_recipe, load_recipe

    found = plan_data(load_recipe(find_recipe(recipe), overrides), load_registry(sources))
    if as_json:
        echo_json(_as_json(found))
    else:
        echo(join_lines(_lines(found)))


def _as_json(found: DataPlan) -> dict[str, Any]:
    def plain(item: PlannedDataset | PlannedModel) -> dict[str, Any]:
        return {**asdict(item), "known": item.known and item.known.model_dump(mode="json")}

    return {
        "recipe": found.recipe,
        "data_root": found.data_root,
        "root_problem": found.root_problem,
        "models": [plain(model) for model in found.models],
        "datasets": [plain(dataset) for dataset in found.datasets],
        "missing": {
            "models": [model.path for model in found.missing_models()],
            "datasets": [dataset.name for dataset in found.missing_datasets()],
            "published_gb": found.missing_gb(),
        },
    }


def _lines(found: DataPlan) -> Iterator[str]:
    yield f"{found.recipe}: {len(found.models)} models, {len(found.datasets)} datasets"
    if found.root_problem is not None:
        yield f"{found.root_problem}. What is here below it cannot be seen."
    yield ""
    for model in found.models:
        yield from _of_model(model)
    for dataset in found.datasets:
        yield ""
        yield from _of_dataset(dataset, found.data_root)
    yield ""
    yield _total(found)


def _of_model(model: PlannedModel) -> Iterator[str]:
    yield f"{model.role}: {model.path}  [{model.state}]"
    if model.known is not None:
        size = "" if model.known.get_gb is None else f", {model.known.get_gb:g} GB"
        yield f"  licence  {model.known.license}{size}"
    if model.state == "present":
        return
    if model.problem is not None:
        yield f"  missing  {model.problem}"
    if model.command:
        unsure = "" if model.known is not None else "  (if it is an id of the hub)"
        yield f"  get      {model.command}{unsure}"


def _of_dataset(dataset: PlannedDataset, data_root: str) -> Iterator[str]:
    counted = "" if dataset.rows is None else f", {dataset.rows:,} rows"
    size = "" if dataset.num_bytes is None else f", {dataset.num_bytes / 1e6:,.1f} MB"
    yield f"{dataset.name}: {', '.join(dataset.stages)}  [{dataset.state}{counted}{size}]"
    if dataset.known is not None:
        yield f"  what     {dataset.known.title}"
        yield f"  size     {dataset.known.size}"
        yield f"  licence  {dataset.known.license}"
        yield f"  from     {dataset.known.home}"
    if dataset.path:
        yield f"  file     {dataset.path}"
    if dataset.media:
        layout = ", ".join(dataset.known.layout) if dataset.known is not None else ""
        yield f"  media    {dataset.media}/{f': {layout}' if layout else ''}"
    if dataset.state == "present":
        return
    if dataset.problem is not None:
        yield f"  {dataset.state:<8} {dataset.problem}"
    for command in dataset.commands:
        yield f"  note     {command[1:].strip()}" if command.startswith("#") else f"  run      {command}"
    if dataset.known is None and dataset.path:
        yield "  source   the recipe names no public dataset for it (data's key `source`)"


def _total(found: DataPlan) -> str:
    models, datasets = len(found.missing_models()), len(found.missing_datasets())
    if not models and not datasets:
        return "Nothing is missing."
    size = found.missing_gb()
    published = f"; {size:,.0f} GB and more, by the sizes that are published" if size else ""
    unseen = ", or cannot be seen" if found.root_problem else ""
    counts = f"{models} of {len(found.models)} models, {datasets} of {len(found.datasets)} datasets"
    return f"Missing{unseen}: {counts}{published}."
