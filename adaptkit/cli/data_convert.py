"""`adaptkit data convert`: public datasets as conversations; those of grounding are here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptkit.cli.data_convert_options import output_option, path_options, run
from adaptkit.cli.data_convert_questions import docvqa, scienceqa, textvqa, the_cauldron, vqav2, vsr
from adaptkit.cli.data_convert_speech import common_voice, librispeech
from adaptkit.cli.group import NamingGroup
from adaptkit.cli.output import FILE, FOLDER, Decorator, add_options


@click.group(cls=NamingGroup)
def convert() -> None:
    """Turn a public dataset into conversations.

    It is read as it is published; nothing is fetched. The file has the format llava. The last line says how much was
    written, and what was skipped and why.
    """


for command in (docvqa, textvqa, vqav2, vsr, scienceqa, the_cauldron, librispeech, common_voice):
    convert.add_command(command)


def common_options(group: str) -> Decorator:
    """Options of every kind; `group` is how its regions are grouped where the user does not say."""
    return add_options(
        output_option,
        click.option(
            "--group",
            type=click.Choice(("region", "picture")),
            default=group,
            show_default=True,
            help="One conversation a region, or one a picture with a turn for each of its regions.",
        ),
        click.option("--max-turns", type=click.IntRange(1), help="Most regions of one conversation."),
        click.option("--max-boxes", type=click.IntRange(1), help="Skip regions with more boxes."),
        click.option(
            "--decimals", default=3, show_default=True, type=click.IntRange(1, 12), help="Decimals of the coordinates."
        ),
        path_options("pictures"),
    )


@convert.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@common_options("region")
@click.option("--split", default="train", show_default=True, help="Name of the split, or all.")
@click.option(
    "--split-by",
    multiple=True,
    help="Who made the splits, unc, google or umd, where a folder has several; may be repeated.",
)
def refcoco(folders: tuple[Path, ...], split: str, split_by: tuple[str, ...], **options: Any) -> None:
    """RefCOCO, RefCOCO+ and RefCOCOg: where is what an expression describes?

    The answer is its box, as fractions of the picture padded to a square, in the wording of the Inner-Adaptor release.

    Each DIR holds instances.json and refs(SPLIT_BY).p, from which only plain values are read.
    """
    from adaptkit.data_tools.convert import convert_refcoco

    run(convert_refcoco, "ConversationOptions", options, folders, split=split, split_by=split_by)


@convert.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@common_options("region")
@click.option("--split", default="train", show_default=True, help="Name of the split, or all.")
def flickr30k(folder: Path, split: str, **options: Any) -> None:
    """Flickr30k Entities: where is what a phrase names?

    DIR holds Sentences, Annotations and the lists of the splits, train.txt, val.txt and test.txt.
    """
    from adaptkit.data_tools.convert import convert_flickr30k

    run(convert_flickr30k, "ConversationOptions", options, folder, split=split)


@convert.command()
@click.argument("annotations", metavar="FILE", type=FILE)
@common_options("picture")
def coco(annotations: Path, **options: Any) -> None:
    """COCO: where are all the objects of a category?

    FILE is instances_train2017.json or another file in its layout. Crowds are skipped.
    """
    from adaptkit.data_tools.convert import convert_coco

    run(convert_coco, "ConversationOptions", options, annotations)


@convert.command()
@click.argument("annotations", metavar="FILE", type=FILE)
@common_options("picture")
@click.option("--skip-fake", is_flag=True, help="Skip objects that are only depicted (isfake).")
@click.option("--skip-reflected", is_flag=True, help="Skip objects in mirrors (isreflected).")
def objects365(annotations: Path, skip_fake: bool, skip_reflected: bool, **options: Any) -> None:
    """Objects365: where are all the objects of a category?

    FILE is zhiyuan_objv2_train.json or another file in its layout. Crowds are skipped.
    """
    from adaptkit.data_tools.convert import convert_objects365

    run(
        convert_objects365,
        "ConversationOptions",
        options,
        annotations,
        skip_fake=skip_fake,
        skip_reflected=skip_reflected,
    )
