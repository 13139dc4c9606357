"""`adaptkit data convert`: public grounding datasets as conversations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.group import NamingGroup
from adaptkit.cli.output import FILE, FOLDER, Decorator, add_options, seed_option
from adaptkit.cli.terminal import Console, echo

if TYPE_CHECKING:
    from adaptkit.data_tools.convert import RegionSummary


@click.group(cls=NamingGroup)
def convert() -> None:
    """Turn a public grounding dataset into conversations.

    Each asks where the region of an expression is. The answer is its boxes, as fractions of the picture padded to a
    square, in the wording of the Inner-Adaptor release. The file has the format llava.
    """


def common_options(group: str) -> Decorator:
    """Options of every kind; `group` is how its regions are grouped where the user does not say."""
    return add_options(
        click.option("--output", required=True, type=FILE, help="JSON file to write."),
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
        click.option("--prefix", default="", help="Folder to add before the pictures' paths."),
        click.option(
            "--strip-folders",
            default=0,
            show_default=True,
            type=click.IntRange(0),
            help="Leading folders to remove from the pictures' paths before --prefix is added.",
        ),
        click.option(
            "--media", type=FOLDER, help="Skip pictures that are not in this folder; paths are relative to it."
        ),
        click.option("--limit", type=click.IntRange(1), help="Most conversations to write."),
        seed_option("With --limit: seed by which conversations are drawn.", show_default="the first ones"),
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
    """RefCOCO, RefCOCO+ and RefCOCOg.

    Each DIR holds instances.json and refs(SPLIT_BY).p, from which only plain values are read.
    """
    from adaptkit.data_tools.convert import convert_refcoco

    _run(convert_refcoco, folders, options, split=split, split_by=split_by)


@convert.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@common_options("region")
@click.option("--split", default="train", show_default=True, help="Name of the split, or all.")
def flickr30k(folder: Path, split: str, **options: Any) -> None:
    """Flickr30k Entities.

    DIR holds Sentences, Annotations and the lists of the splits, train.txt, val.txt and test.txt.
    """
    from adaptkit.data_tools.convert import convert_flickr30k

    _run(convert_flickr30k, folder, options, split=split)


@convert.command()
@click.argument("annotations", metavar="FILE", type=FILE)
@common_options("picture")
def coco(annotations: Path, **options: Any) -> None:
    """COCO: where are all the objects of a category?

    FILE is instances_train2017.json or another file in its layout. Crowds are skipped.
    """
    from adaptkit.data_tools.convert import convert_coco

    _run(convert_coco, annotations, options)


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

    _run(convert_objects365, annotations, options, skip_fake=skip_fake, skip_reflected=skip_reflected)


def _run(converter: Callable[..., RegionSummary], source: Any, options: dict[str, Any], **more: Any) -> None:
    from adaptkit.cli.progress import progress_bar
    from adaptkit.data_tools.convert import ConversationOptions

    if options["seed"] is not None and options["limit"] is None:
        raise click.UsageError("--seed says which conversations --limit takes: give --limit, or neither.")
    output = options.pop("output")
    with progress_bar(Console(stderr=True)) as progress:
        summary = converter(source, output, ConversationOptions(**options), progress, **more)
    echo(summary)
