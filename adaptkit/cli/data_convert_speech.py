"""`adaptkit data convert`: recordings and what is said in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptkit.cli.data_convert_options import output_option, path_options, run
from adaptkit.cli.output import FOLDER, Decorator, add_options


def speech_options() -> Decorator:
    """Options of recordings."""
    return add_options(
        output_option,
        click.option("--prompt", default="Transcribe the recording.", show_default=True, help="What the user says."),
        click.option(
            "--case",
            type=click.Choice(("published", "lower")),
            default="published",
            show_default=True,
            help="Of the text that is answered.",
        ),
        path_options("recordings"),
    )


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@speech_options()
@click.option("--subset", "subsets", multiple=True, help="train-clean-100 and the like; may be repeated.")
def librispeech(folder: Path, subsets: tuple[str, ...], prompt: str, case: str, **options: Any) -> None:
    """LibriSpeech: read books, in capital letters without punctuation.

    DIR is LibriSpeech, or one of its subsets. Paths are relative to it.
    """
    from adaptkit.data_tools.convert import convert_librispeech

    run(convert_librispeech, "TurnOptions", options, folder, subsets=subsets, prompt=prompt, case=case)


@click.command("commonvoice")
@click.argument("folder", metavar="DIR", type=FOLDER)
@speech_options()
@click.option("--split", default="train", show_default=True, help="Name of the table: train, dev, validated, …")
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Skip longer clips; needs the release's clip_durations.tsv.",
)
def common_voice(folder: Path, split: str, prompt: str, case: str, max_seconds: float | None, **options: Any) -> None:
    """Common Voice: read sentences of one language.

    DIR holds train.tsv and clips, such as cv-corpus-17.0-2024-03-15/en. Paths are relative to it.
    """
    from adaptkit.data_tools.convert import convert_common_voice

    more = {"split": split, "prompt": prompt, "case": case, "max_seconds": max_seconds}
    run(convert_common_voice, "TurnOptions", options, folder, **more)
