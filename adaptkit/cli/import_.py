"""`adaptkit import`: the checkpoints of the reference implementations, as workflows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptkit.cli.group import NamingGroup
from adaptkit.cli.output import FOLDER
from adaptkit.cli.terminal import echo

if TYPE_CHECKING:
    from adaptkit.importers import ImportedWorkflows


@click.group("import", cls=NamingGroup)
def import_() -> None:
    """Turn checkpoints of the reference implementations into workflows."""


@import_.command("iaa-official")
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--output", required=True, type=FOLDER, help="Where to write base, vision and grounding.")
@click.option("--base", help="Folder or id of the frozen LLM, to refer to instead of writing a copy.")
@click.option("--encoder", help="Folder or id of the vision encoder, where the checkpoint's own is not here.")
@click.option(
    "--insertion-layers", metavar="I,J,…", help="Layers after which others are inserted, where DIR lacks them."
)
def iaa_official(
    directory: Path, output: Path, base: str | None, encoder: str | None, insertion_layers: str | None
) -> None:
    """Import the checkpoint that the authors of IAA released, from DIR, a folder or hub id.

    It becomes a stock LLM checkpoint and two workflows, vision and grounding, ready for `adaptkit generate`.
    """
    layers = None if insertion_layers is None else parse_layers(insertion_layers)

    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.importers import import_iaa_official
    from adaptkit.model.run_folders import locate

    quiet_libraries()
    _show(import_iaa_official(locate(directory, {})[0], output, encoder, base=base, insertion_layers=layers))


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
    "--encoder",
    show_default="openai/clip-vit-large-patch14",
    help="Folder or id of the CLIP model it was trained with.",
)
@click.option("--scale", type=float, show_default="that of the checkpoint, else 1", help="Scale of the adapters.")
@click.option(
    "--temperature", type=float, show_default="that of the checkpoint, else 10", help="Temperature of the routers."
)
def lavin(
    source: Path, output: Path, base: str, encoder: str | None, scale: float | None, temperature: float | None
) -> None:
    """Import an adapter checkpoint of LaVIN: a .pth or .safetensors, or the folder or hub id DIR that holds it.

    It becomes the workflow vision on a base that stays where it is.
    """
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.importers import import_lavin
    from adaptkit.model.run_folders import locate

    quiet_libraries()
    given = {} if encoder is None else {"encoder": encoder}
    _show(import_lavin(locate(source, {})[0], output, base, **given, scale=scale, temperature=temperature))


def _show(imported: ImportedWorkflows) -> None:
    echo(f"base: {imported.base}")
    echo(f"encoder: {imported.encoder}")
    for name, folder in imported.workflows.items():
        echo(f"{name}: {folder}")
