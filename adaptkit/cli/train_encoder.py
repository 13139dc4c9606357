"""`adaptkit train-encoder`: a small encoder from nothing, for data that no pretrained one knows."""

from __future__ import annotations

from pathlib import Path

import click

from adaptkit.cli.output import FOLDER
from adaptkit.cli.terminal import Console


@click.command(name="train-encoder")
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[a.b.c=value]...", nargs=-1)
@click.option("--output", type=FOLDER, show_default="encoders/NAME", help="Folder to write.")
def train_encoder(recipe_path: Path, overrides: tuple[str, ...], output: Path | None) -> None:
    """Train the encoder of RECIPE from random weights, to be frozen in other recipes.

    It is trained to predict the words of each item's answer. A recipe then names its folder as the encoder's path.
    """
    from adaptkit.cli.progress import progress_bar
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.recipe import load_encoder_recipe
    from adaptkit.run.encoder_training import run_encoder_recipe

    recipe = load_encoder_recipe(recipe_path, overrides)
    quiet_libraries()
    folder = output or Path(recipe.output_dir or Path("encoders") / recipe.name)
    console = Console()
    with progress_bar(console, f"training {recipe.name}") as advance:

        def progress(done: int, total: int, state: str) -> None:
            advance(done, total)
            if state.startswith("loss") and done % recipe.training.evaluate_every == 0:
                console.print(f"step {done}/{total}: {state}")

        result = run_encoder_recipe(recipe, folder, progress)
    held_out = "" if result.held_out_accuracy is None else f", {100 * result.held_out_accuracy:.1f}% of held-out ones"
    console.print(f"{100 * result.train_accuracy:.1f}% of the training items are right{held_out}; wrote {folder}")
