"""What the subcommands of `adaptkit data convert` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.output import FILE, FOLDER, Decorator, add_options, seed_option
from adaptkit.cli.terminal import Console, echo

if TYPE_CHECKING:
    from adaptkit.data_tools.convert import Summary

output_option = click.option("--output", required=True, type=FILE, help="JSON file to write.")
limit_option = click.option("--limit", type=click.IntRange(1), help="Most conversations to write.")


def path_options(noun: str) -> Decorator:
    """Options about the paths of media."""
    return add_options(
        click.option("--prefix", default="", help=f"Folder to add before the {noun}' paths."),
        click.option(
            "--strip-folders",
            default=0,
            show_default=True,
            type=click.IntRange(0),
            help=f"Leading folders to remove from the {noun}' paths before --prefix is added.",
        ),
        click.option(
            "--media", type=FOLDER, help=f"Skip {noun} that are not in this folder; paths are relative to it."
        ),
        limit_option,
        seed_option("With --limit: seed by which conversations are drawn.", show_default="the first ones"),
    )


def run(
    converter: Callable[..., Summary], options_class: str, options: dict[str, Any], *sources: Any, **more: Any
) -> None:
    """Convert with progress on standard error, and print the summary.

    Args:
        converter: Takes the sources, the output, its options and the progress.
        options_class: Name of the class of its options.
        options: Of that class; and `output`.
        sources: What is converted.
        more: Further arguments of the converter.
    """
    from adaptkit.cli.progress import progress_bar
    from adaptkit.data_tools import convert

    if options.get("seed") is not None and options["limit"] is None:
        raise click.UsageError("--seed says which conversations --limit takes: give --limit, or neither.")
    output = options.pop("output")
    with progress_bar(Console(stderr=True)) as progress:
        summary = converter(*sources, output, getattr(convert, options_class)(**options), progress, **more)
    echo(summary)
