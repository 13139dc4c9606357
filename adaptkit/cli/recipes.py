"""`adaptkit recipes`: what recipes are here, and the schema that editors check them with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Column, Table

from adaptkit.cli.hints import LISTING
from adaptkit.cli.output import FILE, json_option
from adaptkit.cli.terminal import Console, echo, echo_json, reserved_stdout, styled
from adaptkit.errors import RecipeError
from adaptkit.files.writing import write_text
from adaptkit.recipe import RecipeSummary, find_recipes, recipe_json_schema, reference, shipped_folder

DEFAULT_FOLDER = Path("recipes")
SCHEMA = "schema"
SHIPPED = "shipped"


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]... | shipped | schema")
@json_option("Print JSON instead of a table.")
@click.option("--output", type=FILE, help="With `schema`: file to write.")
def recipes(folders: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    """List the recipes below ./recipes and the given folders, and say whether each is valid.

    `adaptkit recipes shipped` lists those that came with adaptkit, and so does `adaptkit recipes` where there is no
    folder ./recipes. `adaptkit train` takes them by name.

    `adaptkit recipes schema [--output FILE]` prints the JSON schema of recipes, with the options of the
    installed plugins, for editors that complete and check YAML.
    """
    if folders == (SCHEMA,):
        _write_schema(output)
        return
    if output is not None:
        raise click.UsageError("--output goes with `adaptkit recipes schema`")
    found = find_recipes(_searched(folders))
    if as_json:
        echo_json([{**asdict(one), "path": str(one.path), "valid": one.valid} for one in found])
    else:
        _print_table(found)
    if any(not summary.valid and not _is_shipped(summary) for summary in found):
        raise click.exceptions.Exit(2)


def _write_schema(output: Path | None) -> None:
    if output is None:
        with reserved_stdout():
            echo_json(recipe_json_schema())
        return
    text = json.dumps(recipe_json_schema(), indent=2) + "\n"
    write_text(output, text)
    echo(f"Wrote {output}. In a recipe's first line: # yaml-language-server: $schema={output}", err=True)


def _searched(folders: Sequence[str]) -> list[Path]:
    words = [word for word in folders if word in LISTING and not Path(word).exists()]
    if words:
        raise click.UsageError(
            f"{words[0]}: `adaptkit recipes` alone lists. Beside it stand only folders to search, or schema."
        )
    shipped = shipped_folder()
    own = [DEFAULT_FOLDER] if DEFAULT_FOLDER.is_dir() else []
    named = [shipped if word == SHIPPED and shipped is not None else Path(word) for word in folders]
    searched = [*own, *named] or ([] if shipped is None else [shipped])
    if not searched:
        raise RecipeError("no folder ./recipes here. Run this where one is, or name a folder that holds recipes.")
    return searched


def _is_shipped(summary: RecipeSummary) -> bool:
    """Whether a recipe came with adaptkit; it may need plugins that are not installed."""
    folder = shipped_folder()
    return folder is not None and summary.path.resolve().is_relative_to(folder.resolve())


def _print_table(found: Sequence[RecipeSummary]) -> None:
    table = Table("recipe", "what it is", Column("name or path", overflow="fold"), "valid")
    for summary in found:
        mark = styled("yes", "green") if summary.valid else styled("no", "red")
        table.add_row(summary.name, summary.description, reference(summary.path), mark)
    console = Console()
    console.print(table)
    if not any(map(_is_shipped, found)) and shipped_folder() is not None:
        console.print("Others ship with adaptkit: `adaptkit recipes shipped` lists them.", style="dim")
    for summary in found:
        for problem in summary.problems:
            console.print(styled(problem, "red"), soft_wrap=True)
