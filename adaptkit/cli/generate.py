"""`adaptkit generate`: one answer."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from adaptkit.cli.answering import answer_options
from adaptkit.cli.output import keep_stdout, trust_option
from adaptkit.cli.terminal import Console, echo_part, echo_text
from adaptkit.errors import DataError

ORDER = f"{__name__}.order"


class InOrder(click.Command):
    """A command that knows in which order options were given, of which several name files."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Also note the order, which click forgets."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            ctx.meta[ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@click.command(cls=InOrder)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--prompt", required=True, help="What to ask. A tag in it, such as <image>, marks the place of a media file."
)
@click.option("--media", multiple=True, metavar="NAME=FILE", help="A file of the modality NAME; may be repeated.")
@click.option("--image", multiple=True, metavar="FILE", help="Short for --media image=FILE.")
@click.option("--audio", multiple=True, metavar="FILE", help="Short for --media audio=FILE.")
@click.option("--system", help="A system message.")
@click.option(
    "--workflow",
    show_default="the first that takes the media; text without media",
    help="Workflow of a run; `text` is the base alone.",
)
@answer_options
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Sample only from the likeliest tokens that make up this probability.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@trust_option()
@click.pass_context
def generate(
    context: click.Context,
    /,
    checkpoint: Path,
    prompt: str,
    media: tuple[str, ...],
    image: tuple[str, ...],
    audio: tuple[str, ...],
    system: str | None,
    workflow: str | None,
    top_p: float | None,
    stop: tuple[str, ...],
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Answer one prompt with a workflow of CHECKPOINT: a workflow's folder or hub id, or a run directory.

    Media are put before the prompt, in the order given, unless their tags are in it. A prompt without media goes to
    the text workflow, which is the base, unless --workflow names another. In a terminal the answer appears as it
    grows.
    """
    is_terminal = sys.stdout.isatty()
    keep_stdout(context)  # for the answer
    files = {"media": list(media), "image": [f"image={f}" for f in image], "audio": [f"audio={f}" for f in audio]}
    given = [_parse_medium(files[name].pop(0)) for name in context.meta[ORDER] if name in files]
    if not prompt.strip() and not given:
        raise DataError("--prompt is empty: write what to ask.")
    if "" in stop:
        raise DataError("--stop is empty: write a text to stop at.")
    if top_p is not None and not options["temperature"]:
        raise click.UsageError("--top-p is about sampling: give --temperature above 0 with it.")

    from adaptkit.cli.quiet import quiet_libraries

    quiet_libraries()
    from adaptkit.inference import Session
    from adaptkit.inference.routing import AUTO, choose_workflow, named_folders, saved_modalities
    from adaptkit.model.run_folders import located

    waiting = Console(stderr=True).status("loading") if is_terminal else nullcontext()
    with ExitStack() as stack:
        with waiting:
            checkpoint = located(checkpoint)
            folders = named_folders([checkpoint])
            used = {name for name, _ in given}
            chosen = choose_workflow(used, saved_modalities(folders), next(iter(folders)), workflow or AUTO)
            session = stack.enter_context(
                Session.open(checkpoint, workflows=[chosen], trust_remote_code=trust_remote_code, prefix_cache_bytes=0)
            )
        messages = build_messages(session.processor(chosen), prompt, given, system)
        request = session.submit(messages, chosen, top_p=top_p, stop_strings=list(stop), **options)
        show_answer(request, as_it_grows=is_terminal)


def show_answer(request: Any, *, as_it_grows: bool) -> None:
    """Print an answer: whole, or each piece when it is there."""
    if as_it_grows:
        for piece in request:
            echo_part(piece.text)
        echo_part("\n")
    else:
        echo_text(request.result().text)


def build_messages(
    processor: Any, prompt: str, media: list[tuple[str, str]], system: str | None
) -> list[dict[str, Any]]:
    """One user turn: media at their tags in the prompt, those without a tag before it.

    Raises:
        DataError: The prompt has more tags of a modality than media are given, or a modality is unknown.
    """
    from adaptkit.errors import unknown_name

    queues: dict[str, list[str]] = {}
    for name, file in media:
        if name not in processor.modalities:
            raise DataError(unknown_name("modality of this workflow", name, processor.modalities))
        queues.setdefault(name, []).append(file)
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    for name, inputs in processor.modalities.items():
        parts = [piece for part in parts for piece in _place(part, name, inputs.modality.tag, queues)]
    left = {name: len(files) for name, files in queues.items()}
    front: list[dict[str, Any]] = []
    for name, file in reversed(media):  # tags have taken the first ones of each modality
        if left[name]:
            left[name] -= 1
            front.insert(0, {"type": name, name: file})
    if front:
        parts = [*front, {"type": "text", "text": "\n"}, *parts]
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": parts}]


def _place(part: dict[str, Any], name: str, tag: str, queues: dict[str, list[str]]) -> list[dict[str, Any]]:
    if part["type"] != "text" or tag not in part["text"]:
        return [part]
    first, *rest = part["text"].split(tag)
    pieces: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
    for text in rest:
        if not queues.get(name):
            raise DataError(
                f"the prompt has {len(rest)} {tag} tag(s), more than there are {name} files. Add --media {name}=FILE."
            )
        pieces.append({"type": name, name: queues[name].pop(0)})
        pieces += [{"type": "text", "text": text}] if text else []
    return pieces


def _parse_medium(entry: str) -> tuple[str, str]:
    name, separator, file = entry.partition("=")
    if not separator or not name or not file:
        raise DataError(f"--media {entry}: write NAME=FILE, such as image=photo.jpg.")
    return name, file
