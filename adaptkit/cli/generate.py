"""`adaptkit generate`: one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptkit.cli.output import keep_stdout, seed_option, trust_option
from adaptkit.cli.terminal import echo_text
from adaptkit.errors import DataError


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--prompt", required=True, help="What to ask. A tag in it, such as <image>, marks the place of a media file."
)
@click.option("--media", multiple=True, metavar="NAME=FILE", help="A file of the modality NAME; may be repeated.")
@click.option("--image", multiple=True, metavar="FILE", help="Short for --media image=FILE.")
@click.option("--audio", multiple=True, metavar="FILE", help="Short for --media audio=FILE.")
@click.option("--system", help="A system message.")
@click.option(
    "--workflow", show_default="the first; text without media", help="Workflow of a run; `text` is the base alone."
)
@click.option(
    "--max-new-tokens", default=128, show_default=True, type=click.IntRange(min=1), help="Most tokens of the answer."
)
@click.option(
    "--temperature",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Temperature of sampling; 0 decodes greedily.",
)
@seed_option("Seed of sampling.", default=0)
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
    max_new_tokens: int,
    temperature: float,
    seed: int,
    trust_remote_code: bool,
) -> None:
    """Answer one prompt with a workflow of CHECKPOINT: a workflow's folder or hub id, or a run directory.

    Media are put before the prompt unless their tags are in it. A prompt without media goes to the text workflow, which
    is the base, unless --workflow names another.
    """
    keep_stdout(context)  # for the answer
    given = [_parse_medium(entry) for entry in media]
    given += [("image", file) for file in image] + [("audio", file) for file in audio]

    import torch

    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.model.run_folders import load_workflow

    quiet_libraries()
    text_only = workflow == "text" or (workflow is None and not given)
    model, processor = load_workflow(
        checkpoint, None if workflow == "text" else workflow, trust_remote_code=trust_remote_code
    )
    messages = build_messages(processor, prompt, given, system)
    batch = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    torch.manual_seed(seed)
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling["temperature"] = temperature
    generator = model.base if text_only else model
    stop = processor.stop_settings(generator.generation_config)
    output = generator.generate(**batch.to(model.device), max_new_tokens=max_new_tokens, **sampling, **stop)
    echo_text(processor.decode_answers(output[:, batch["input_ids"].shape[1] :])[0])


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
    front = [{"type": name, name: file} for name, files in queues.items() for file in files]
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
