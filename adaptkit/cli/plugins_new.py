"""`adaptkit plugins new`: a plugin package to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from adaptkit.cli.output import FOLDER
from adaptkit.cli.terminal import echo

KINDS = ("modality", "encoder", "projector", "policy")


@click.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="modality",
    show_default=True,
    help="What it offers: a modality with an encoder, an encoder, a projector or an insertion policy.",
)
@click.option("--modality", metavar="NAME", help="With --kind encoder: the installed modality whose items it encodes.")
@click.option(
    "--directory", type=FOLDER, default=Path(), show_default="here", help="Folder in which to make the package's own."
)
def new(name: str, kind: str, modality: str | None, directory: Path) -> None:
    """Write a working plugin package, to be filled in.

    NAME is what recipes will call it: gyro, wind-speed. The package is adaptkit-NAME.
    """
    from adaptkit.scaffold import write_scaffold

    folder = write_scaffold(name, directory, kind=kind, modality=modality)
    echo(f"Wrote {folder}. Next:")
    echo(f"  pip install -e {shlex.quote(str(folder))}")
    echo(f"  adaptkit plugins check {folder.name}")
    echo(f"Then fill in what {folder / 'README.md'} lists.")
