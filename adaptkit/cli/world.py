"""`adaptkit world`: rebuild and score the built-in models, and write the built-in world's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from adaptkit.cli.group import NamingGroup
from adaptkit.cli.output import FOLDER, json_option, seed_option
from adaptkit.cli.terminal import Console, echo, echo_json
from adaptkit.errors import ModelError, RecipeError

MODELS = ("decoder", "encoder")
OUTPUT = Path("runs/world")
KINDS = ("caption", "questions", "boxes", "text")
model_argument = click.argument("model", type=click.Choice(MODELS), required=False)


@click.group(cls=NamingGroup)
def world() -> None:
    """Rebuild the built-in models, or write the built-in world's data."""


@world.command()
@model_argument
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    show_default="the one that ships with adaptkit",
    help="Recipe of the model.",
)
@click.option("--output", type=FOLDER, show_default=f"{OUTPUT}/MODEL", help="Folder to write.")
def build(model: str | None, recipe: Path | None, output: Path | None) -> None:
    """Train a built-in model again, or both.

    The models that adaptkit ships were made by this command and the recipes in the repository.
    """
    if model is None and (recipe or output):
        raise click.UsageError("--recipe and --output go with one model: name decoder or encoder.")
    if output is not None and output.exists() and any(output.iterdir()):
        raise click.UsageError(f"--output {output} is not empty, and would be replaced. Name another folder.")
    from adaptkit.recipe import find_recipe

    for name in [model] if model else MODELS:
        folder = output or OUTPUT / name
        _build(name, recipe or find_recipe(f"world/{name}"), folder)
        echo(f"Wrote {folder}. `adaptkit world score {name} --path {folder}` scores it.")


@world.command()
@model_argument
@click.option(
    "--path", type=FOLDER, show_default="the one that ships with adaptkit", help="Folder or hub id of the model."
)
@click.option("--num-items", default=200, show_default=True, type=click.IntRange(1), help="Items of each kind.")
@seed_option("Seed of the held-out items.", default=1)
@json_option()
def score(model: str | None, path: Path | None, num_items: int, seed: int, as_json: bool) -> None:
    """Score a built-in model, or both, on held-out items.

    The decoder answers questions about facts and about scenes described in words, scored by exact match. Linear probes
    on the encoder's features predict shapes, colours, cells, and where objects are.
    """
    if model is None and path:
        raise click.UsageError("--path goes with one model: name decoder or encoder.")
    scores = {name: _score(name, path, seed, num_items) for name in ([model] if model else MODELS)}
    if as_json:
        echo_json(scores)
        return
    for name, values in scores.items():
        table = Table("item", "score", title=f"Built-in {name}, held-out items", title_justify="left")
        for kind, value in values.items():
            table.add_row(kind, f"{value:.3f}")
        Console().print(table)


@world.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    show_default="all",
    help="Kind of conversations; may be repeated.",
)
@click.option("--num-samples", default=1000, show_default=True, type=click.IntRange(1), help="Samples of each kind.")
@click.option(
    "--split", default="train", show_default=True, type=click.Choice(("train", "dev", "test")), help="Split to write."
)
@seed_option("Seed of the samples; the same seed gives the same files.", default=0)
def data(directory: Path, kinds: tuple[str, ...], num_samples: int, split: Any, seed: int) -> None:
    """Write the world's conversations and images to DIR, in the LLaVA format."""
    from adaptkit.world.dataset import write_world_data

    for kind in kinds or KINDS:
        path = write_world_data(directory, kind=kind, num_samples=num_samples, split=split, seed=seed)  # type: ignore[arg-type]
        echo(f"{kind}: {path}")


def _build(name: str, recipe: Path, output: Path) -> None:
    if not recipe.is_file():
        raise RecipeError(f"no recipe at {recipe}. Give --recipe.")
    from adaptkit.world.storage import load_options

    if name == "decoder":
        from adaptkit.world.build_decoder import DecoderOptions, build_decoder

        build_decoder(load_options(recipe, DecoderOptions), output, echo)
    else:
        from adaptkit.world.build_encoder import EncoderOptions, build_encoder

        build_encoder(load_options(recipe, EncoderOptions), output, echo)


def _score(name: Any, path: Path | None, seed: int, num_items: int) -> dict[str, float]:
    from adaptkit.model.run_folders import locate
    from adaptkit.world import model_path

    folder = model_path(name) if path is None else locate(path, {})[0]
    if not (folder / "config.json").is_file():
        raise ModelError(f"no {name} at {folder}. `adaptkit world build {name} --output {folder}` makes one.")
    if name == "decoder":
        from adaptkit.world.scores import score_decoder

        return score_decoder(folder, seed=seed, num_per_kind=num_items)
    from adaptkit.world.probes import probe_encoder

    return probe_encoder(folder, seed=seed, num_scenes=num_items)
