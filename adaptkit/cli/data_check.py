"""`adaptkit data check`: what is wrong with training data, before a run finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.output import json_option
from adaptkit.cli.terminal import Console, echo_json
from adaptkit.errors import DataError, join_lines

if TYPE_CHECKING:
    from adaptkit.recipe import Recipe

RECIPE_ENDINGS = (".yaml", ".yml")


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--format", "data_format", show_default="determined from their content", help="Format of the files.")
@click.option(
    "--media",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    show_default="each file's own",
    help="Folder of the files' media.",
)
@click.option(
    "--media-root",
    "media_roots",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Further folder that may hold the files' media; may be repeated.",
)
@click.option(
    "--modality", "modalities", multiple=True, show_default="all installed", help="Modality of the files' media."
)
@click.option(
    "--tokenizer",
    metavar="DIR",
    show_default="that of the base",
    help="Tokenizer by which lengths are measured, or its hub id.",
)
@click.option(
    "--max-length",
    type=click.IntRange(1),
    show_default="that of the recipe's stages",
    help="Longest conversation, in tokens.",
)
@click.option(
    "--positions",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Tokens that each media item of a data file counts as.",
)
@click.option("--no-media", is_flag=True, help="Check only that media files exist, without reading them.")
@click.option("--sample", metavar="N", type=click.IntRange(1), help="Check N random samples of each dataset.")
@click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    show_default="that of the recipe, else 0.01",
    help="Share of samples that may be bad.",
)
@click.option("--strict", is_flag=True, help="Fail on problems of usable samples, too.")
@click.option(
    "--examples", default=3, show_default=True, type=click.IntRange(0), help="Examples of each kind of problem."
)
@click.option("--workers", type=click.IntRange(1), show_default="one for each core", help="Number of processes.")
@json_option()
def check(
    paths: tuple[str, ...],
    data_format: str | None,
    media: Path | None,
    media_roots: tuple[Path, ...],
    modalities: tuple[str, ...],
    tokenizer: str | None,
    max_length: int | None,
    positions: int,
    no_media: bool,
    sample: int | None,
    max_bad_fraction: float | None,
    strict: bool,
    examples: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check training data: a recipe's mixtures, or data files.

    PATH... is a recipe, which settings such as data_root=/data may follow, or one or more data files. Every sample is
    read and encoded as in training. Exit code 2: too many samples are bad, or nothing can be read.
    """
    from adaptkit.cli.data_report import print_report, report_as_json
    from adaptkit.cli.progress import progress_bar
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.data_tools.check import plan_files, plan_recipe, run_check
    from adaptkit.recipe import find_recipe

    quiet_libraries()
    judged: dict[str, Any] = {"tokenizer": tokenizer, "max_length": max_length, "max_bad_fraction": max_bad_fraction}
    judged["reads_media"] = not no_media
    console = Console(stderr=True)
    if not Path(paths[0]).exists():
        paths = (str(find_recipe(paths[0])), *paths[1:])
    with console.status("opening the data"):
        if paths[0].endswith(RECIPE_ENDINGS):
            if data_format or media or media_roots or modalities or positions > 1:
                raise click.UsageError(
                    "--format, --media, --media-root, --modality and --positions go with files; the recipe has its own."
                )
            plan = plan_recipe(_recipe(paths), **judged)
        else:
            plan = plan_files(
                [Path(path) for path in paths],
                data_format=data_format,
                media=media,
                media_roots=media_roots,
                modalities=modalities or None,
                positions=positions,
                **judged,
            )
    with progress_bar(console) as progress:
        report = run_check(
            plan, workers=workers, num_examples=examples, sample=sample, strict=strict, progress=progress
        )
    if as_json:
        echo_json(report_as_json(report))
    else:
        print_report(report, Console(), examples)
    if report.reasons:
        reasons = (f"  {reason}" for reason in report.reasons)
        raise DataError(join_lines(["the data are not fit for training:", *reasons]))


def _recipe(paths: Sequence[str]) -> Recipe:
    from adaptkit.recipe import load_recipe

    recipe, *overrides = paths
    files = [word for word in overrides if "=" not in word]
    if files:
        raise click.UsageError(f"{files[0]}: after a recipe only its settings may follow, a.b.c=value.")
    return load_recipe(Path(recipe), overrides)
