"""`adaptkit data translate`: conversations in another language."""

from __future__ import annotations

from pathlib import Path

import click

from adaptkit.cli.output import FILE
from adaptkit.cli.terminal import Console, echo


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
@click.option(
    "--model",
    required=True,
    metavar="PATH",
    help="Folder or hub id: a Marian, NLLB, M2M100, mBART or T5 model, or a chat model.",
)
@click.option("--to", "target", required=True, metavar="CODE", help="Language of the result: zh, de, ja, …")
@click.option("--from", "source", default="en", show_default=True, metavar="CODE", help="Language of the file.")
@click.option("--output", type=FILE, help="File to write.  [default: FILE's name with the language's code]")
@click.option("--limit", type=click.IntRange(1), help="Translate and write the first so many conversations only.")
@click.option(
    "--untranslated",
    type=click.Choice(("keep", "drop")),
    default="keep",
    show_default=True,
    help="What becomes of conversations that lost something: they stay in their language, or are dropped.",
)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Sentences at a time.")
@click.option("--num-beams", default=1, show_default=True, type=click.IntRange(1, 64), help="Beams of the search.")
@click.option(
    "--max-new-tokens", default=1024, show_default=True, type=click.IntRange(1), help="Most tokens of a translation."
)
@click.option("--device", help="cuda, cuda:1, cpu, …  [default: a GPU if there is one]")
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="Of the model's weights.  [default: on a GPU the checkpoint's, on a CPU float32]",
)
def translate(
    file: Path,
    model: str,
    target: str,
    source: str,
    output: Path | None,
    limit: int | None,
    untranslated: str,
    batch_size: int,
    num_beams: int,
    max_new_tokens: int,
    device: str | None,
    dtype: str | None,
) -> None:
    """Translate the conversations of a file with a local model.

    FILE has the format llava, sharegpt or messages, as JSON or JSON Lines, and so has the result. Tags of media, boxes,
    code, addresses and numbers are kept; a conversation in which one is lost stays in its language, and is counted
    with the reason. A stopped run resumes with the same command.
    """
    from adaptkit.cli.progress import progress_bar
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.data_tools.translate import GenerationOptions, find_language, load_translator, translate_file
    from adaptkit.data_tools.translate.models import describe_model

    quiet_libraries()
    languages = find_language(source), find_language(target)
    if source == target:
        raise click.UsageError(f"--from and --to are both {source}.")
    options = GenerationOptions(batch_size, max_new_tokens, num_beams, device, dtype)
    settings = {
        "model": describe_model(model),
        "from": source,
        "to": target,
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
    }
    with progress_bar(Console(stderr=True)) as progress:
        summary = translate_file(
            file,
            output or file.with_name(f"{file.stem}_{target}{file.suffix}"),
            languages[1],
            lambda: load_translator(model, *languages, options),
            settings,
            limit=limit,
            untranslated=untranslated,  # type: ignore[arg-type]  # one of its choices
            progress=progress,
        )
    echo(summary)
