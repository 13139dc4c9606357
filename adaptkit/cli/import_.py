"""`adaptkit import`: the checkpoints of the reference implementations, as workflows."""

from __future__ import annotations

from pathlib import Path

import click

from adaptkit.cli.group import NamingGroup
from adaptkit.cli.terminal import echo

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("import", cls=NamingGroup)
def import_() -> None:
    """Turn checkpoints of the reference implementations into workflows."""


@import_.command("iaa-official")
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--output", required=True, type=FOLDER, help="Where to write base, vision and grounding.")
@click.option("--base", help="Folder or id of the frozen LLM, to refer to instead of writing it again.")
@click.option("--encoder", help="Folder or id of the vision tower, where the checkpoint's own is not at hand.")
@click.option("--insertion-layers", metavar="I,J,…", help="Layers that the inserted ones follow, where DIR lacks them.")
def iaa_official(
    directory: Path, output: Path, base: str | None, encoder: str | None, insertion_layers: str | None
) -> None:
    """Import the checkpoint that the authors of IAA released, from DIR.

    It becomes a stock LLM checkpoint and two workflows, vision and grounding, ready for `adaptkit generate`.
    """
    layers = None if insertion_layers is None else parse_layers(insertion_layers)

    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.importers import import_iaa_official

    quiet_libraries()
    imported = import_iaa_official(directory, output, encoder, base=base, insertion_layers=layers)
    echo(f"base: {imported.base}")
    echo(f"encoder: {imported.encoder}")
    for name, folder in imported.workflows.items():
        echo(f"{name}: {folder}")


def parse_layers(text: str) -> list[int]:
    """Layer numbers separated by commas."""
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise click.UsageError(f"--insertion-layers {text}: write layer numbers separated by commas, such as 0,1,5,6.")
    return [int(number) for number in numbers]


@import_.command("lavin")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=FOLDER, help="Where to write the workflow, vision.")
@click.option("--base", required=True, help="Folder or id of the LLaMA it was trained on, in transformers' layout.")
@click.option(
    "--encoder", help="Folder or id of the CLIP it was trained with; openai/clip-vit-large-patch14 if not given."
)
@click.option("--scale", type=float, help="Of the adapters; 1 where neither this nor the checkpoint says.")
@click.option("--temperature", type=float, help="Of the routers; 10 where neither this nor the checkpoint says.")
def lavin(
    source: Path, output: Path, base: str, encoder: str | None, scale: float | None, temperature: float | None
) -> None:
    """Import an adapter checkpoint of LaVIN: a .pth or .safetensors, or the folder DIR that holds it.

    It becomes the workflow vision on a base that stays where it is.
    """
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.importers import import_lavin

    quiet_libraries()
    given = {} if encoder is None else {"encoder": encoder}
    imported = import_lavin(source, output, base, **given, scale=scale, temperature=temperature)
    echo(f"base: {imported.base}")
    echo(f"encoder: {imported.encoder}")
    for name, folder in imported.workflows.items():
        echo(f"{name}: {folder}")
