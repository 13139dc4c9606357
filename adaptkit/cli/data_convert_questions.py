"""`adaptkit data convert`: questions about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptkit.cli.data_convert_options import limit_option, output_option, path_options, run
from adaptkit.cli.output import FILE, FOLDER, Decorator, add_options


def question_options(instruction: str, group: str | None = "question") -> Decorator:
    """Options of questions about pictures.

    Args:
        instruction: What is put after a question; shown as the default.
        group: How questions are grouped by default; None where each has a picture of its own.
    """
    grouping = (
        click.option(
            "--group",
            type=click.Choice(("question", "picture")),
            default=group,
            show_default=True,
            help="One conversation a question, or one a picture with a turn for each of its questions.",
        ),
        click.option("--max-turns", type=click.IntRange(1), help="Most questions of one conversation."),
    )
    return add_options(
        output_option,
        *(grouping if group is not None else ()),
        click.option(
            "--instruction",
            show_default=instruction,
            help="Line after the first question of a conversation; '' for none.",
        ),
        path_options("pictures"),
    )


SHORT = "Answer the question using a single word or phrase."
LETTER = "with letters, Answer with the option's letter from the given choices directly."


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@question_options(SHORT)
def docvqa(files: tuple[Path, ...], **options: Any) -> None:
    """DocVQA: questions about scanned pages.

    FILE is train_v1.0_withQT.json, val_v1.0_withQT.json or another file in their layout; the answer is the first of
    the published ones. Answers to the test split are not published.
    """
    from adaptkit.data_tools.convert import convert_docvqa

    run(convert_docvqa, "TurnOptions", options, files)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@question_options(SHORT)
def textvqa(files: tuple[Path, ...], **options: Any) -> None:
    """TextVQA: questions about text in photographs.

    FILE is TextVQA_0.5.1_train.json or another file in its layout; the answer is the most frequent of ten. Pictures
    lie in train_images.
    """
    from adaptkit.data_tools.convert import convert_textvqa

    run(convert_textvqa, "TurnOptions", options, files)


@click.command()
@click.argument("questions", metavar="QUESTIONS", type=FILE)
@click.argument("annotations", metavar="ANNOTATIONS", type=FILE)
@question_options(SHORT, "picture")
def vqav2(questions: Path, annotations: Path, **options: Any) -> None:
    """VQA v2: questions about COCO's pictures.

    QUESTIONS is v2_OpenEnded_mscoco_train2014_questions.json, ANNOTATIONS is v2_mscoco_train2014_annotations.json, or
    both of another split; the answer is the one that the release chose. Pictures lie in train2014.
    """
    from adaptkit.data_tools.convert import convert_vqav2

    run(convert_vqav2, "TurnOptions", options, questions, annotations)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@question_options(SHORT)
@click.option(
    "--form",
    type=click.Choice(("yes-no", "true-false")),
    default="yes-no",
    show_default=True,
    help="Words of question and answer.",
)
def vsr(files: tuple[Path, ...], form: str, **options: Any) -> None:
    """VSR: is a sentence about where things are true?

    FILE is train.jsonl, dev.jsonl, test.jsonl or all_vsr_validated_data.jsonl.
    """
    from adaptkit.data_tools.convert import convert_vsr

    run(convert_vsr, "TurnOptions", options, files, form=form)


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@question_options(LETTER, None)
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("train",),
    show_default=True,
    help="train, val, test, another name of pid_splits.json, or all; may be repeated.",
)
@click.option(
    "--prompt-format",
    default="letter",
    show_default=True,
    help="letter, as LLaVA-1.5 asks for it, or one of LaVIN's, such as QCM-ALE.",
)
@click.option("--captions", type=FILE, help="captions.json, for the context in LaVIN's formats.")
def scienceqa(folder: Path, splits: tuple[str, ...], prompt_format: str, captions: Path | None, **options: Any) -> None:
    """ScienceQA: questions with choices, about half of them with a picture.

    DIR holds problems.json, pid_splits.json and images/SPLIT/ID/image.png.
    """
    from adaptkit.data_tools.convert import convert_scienceqa

    more = {"splits": splits, "prompt_format": prompt_format, "captions": captions}
    run(convert_scienceqa, "TurnOptions", options, folder, **more)


@click.command("the-cauldron")
@click.argument("folder", metavar="DIR", type=FOLDER)
@output_option
@click.option("--subset", "subsets", multiple=True, help="Name of a subset, ai2d and the like; may be repeated.")
@limit_option
def the_cauldron(folder: Path, subsets: tuple[str, ...], **options: Any) -> None:
    """The Cauldron: parquet rows of `images` and `texts`.

    DIR holds a folder of parquet files for each subset, or the files of one. The pictures are written to the folder
    `pictures` beside the output. The format parquet reads the same rows as they are.
    """
    from adaptkit.data_tools.convert import convert_cauldron

    run(convert_cauldron, "WriteOptions", options, folder, subsets=subsets)
