"""The lists and tables of a model card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from adaptkit.errors import inert
from adaptkit.files.hub import is_hub_id
from adaptkit.files.paths import WORLD_PREFIX
from adaptkit.model.card.facts import Card, Proof, Score, Stage
from adaptkit.model.modality import WorkflowModality

Rows = Iterable[Sequence[object]]

_NONE = "–"
_PLACEMENTS = {
    "every": "after every {} layers",
    "count": "after {} layers, evenly spread",
    "first": "after each of the first {} layers",
    "last": "after each of the last {} layers",
    "layers": "after the layers {}",
}


def tables(config: Mapping[str, Any], modalities: Mapping[str, WorkflowModality], card: Card) -> dict[str, str]:
    """Tables and lists by name, as Markdown."""
    parts = ([part.name, part.state, f"{part.num_parameters:,}"] for part in card.components)
    return {
        "frozen": table(["", "kind", "from", "revision", "content hash"], _frozen(config, modalities)),
        "settings": "\n".join(f"- {setting}" for setting in _settings(config, modalities)),
        "layers": table(["layers of the workflow", "kind", "origin"], _layers(config["layer_map"])),
        "parts": table(["part", "state", "parameters"], parts),
        "stages": table(
            ["stage", "trained", "parameters", "steps", "batch", "peak learning rate", "data"],
            map(_stage, card.stages),
        ),
        "datasets": table(
            ["dataset", "format", "hub id", "samples"],
            ([code(d.name), code(d.format), _code(d.hub_id), _number(d.num_samples)] for d in card.data),
        ),
        "proof": "" if card.proof is None else table(["compared", ""], _proof(card.proof)),
        "scores": table(
            ["asked", "section", "metric", "score", "beside", "samples", "scored by"], map(_score, card.scores)
        ),
    }


def code(text: object) -> str:
    """Text of somebody else as code in a line or a table of Markdown."""
    return f"`{inert(text).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def _code(text: object) -> str:
    return code(text) if text else _NONE


def _number(number: int | None) -> str:
    return _NONE if number is None else f"{number:,}"


def table(header: Sequence[str], rows: Rows) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def is_on_hub(name: str) -> bool:
    """Whether a reference names a model of the hub."""
    return is_hub_id(name) and not name.startswith(WORLD_PREFIX)


def short_name(name: str) -> str:
    """A model's id or the name of its folder, without the way there."""
    return name if is_on_hub(name) or name.startswith(WORLD_PREFIX) else Path(name).name


def frozen_name(name: str, architecture: object) -> str:
    """How a card names a frozen model: an id is one that others can load, a folder is named without the way there."""
    if not name:
        return f"a {code(architecture)} that the checkpoint does not name"
    if name.startswith(WORLD_PREFIX):
        return f"{code(name)} (part of adaptkit)"
    return code(name) if is_on_hub(name) else f"the folder {code(short_name(name))}"


def _frozen(config: Mapping[str, Any], modalities: Mapping[str, WorkflowModality]) -> Iterator[list[str]]:
    """Rows on base and encoders: what it is, where from, its revision, and the hash of its content."""
    base = config["base"]
    kind = f"{code(base.get('architecture'))}, {base['dtype']}"
    if base.get("quantization"):
        kind += f", quantised as {base['quantization']}"
    yield ["base", kind, frozen_name(base["name_or_path"], base.get("architecture")), *_content(base)]
    for name, modality in modalities.items():
        reference, options = modality.encoder, modality.encoder_options
        place = options.get("path") or reference.get("name_or_path") or ""
        kind = code(modality.encoder_name or reference.get("object"))
        where = frozen_name(str(place), reference.get("object") or modality.encoder_name)
        if not reference.get("name"):
            where = "not in this folder, nor named" if is_lost(modality) else f"the folder {code(f'encoders/{name}')}"
        revision = reference.get("revision") or options.get("revision")
        yield [f"encoder of {code(name)}", kind, where, *_content({**reference, "revision": revision})]


def is_lost(modality: WorkflowModality) -> bool:
    """Whether a checkpoint neither holds nor names a modality's encoder, which has to be given again."""
    return not modality.encoder.get("name") and "adopted_by" not in modality.encoder


def _content(reference: Mapping[str, Any]) -> list[str]:
    return [_code(reference.get("revision")), _code(reference.get("content_hash"))]


def _settings(config: Mapping[str, Any], modalities: Mapping[str, WorkflowModality]) -> Iterator[str]:
    """Placement and options of the policy, ends and projectors, in words."""
    insertion = dict(config["insertion"])
    insertion.pop("policy", None)
    for key, value in (insertion.pop("placement", None) or {}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield _PLACEMENTS.get(key, f"{key} {{}}").format(shown)
    yield from (f"{code(key)} {code(value)}" for key, value in sorted(insertion.items()))
    ends = "are the workflow's own, and trained" if config["replace_ends"] else "are the base's"
    yield f"embedding, final norm and LM head {ends}"
    for name, modality in modalities.items():
        projector = modality.projector.get("name") or modality.projector.get("object")
        options = {key: value for key, value in sorted(modality.projector_options.items()) if value is not None}
        words = "".join(f", {code(key)} {code(value)}" for key, value in options.items())
        yield f"projector of {code(name)}: {code(projector)}{words}"


def _layers(layer_map: Sequence[Sequence[Any]]) -> Iterator[list[str]]:
    """Rows of runs of layers of one kind: where they stand, what they are, and which layers of the base they are."""
    origins = {"inserted": "started as a copy of", "unfrozen": "a trained copy of", "adapted": "with adapters in it:"}
    indexed = list(enumerate(layer_map))
    for kind, run in groupby(indexed, key=lambda entry: entry[1][0]):
        entries = list(run)
        own, base = _span([index for index, _ in entries]), _span([entry[1] for _, entry in entries])
        yield [own, str(kind), f"{origins.get(kind, '')} base layer {base}".strip()]


def _span(numbers: Sequence[Any]) -> str:
    """`0–3`, or numbers one by one where they are not in a row."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _stage(stage: Stage) -> list[str]:
    data = ", ".join(f"{code(name)} ({share})" for name, share in stage.data.items())
    batch = f"{stage.batch_size:,} {'packs' if stage.packing else 'samples'}"
    rate = f"{stage.learning_rate:g} ({stage.optimizer})"
    trained = ", ".join(stage.train)
    return [code(stage.name), trained, f"{stage.num_trainable:,}", f"{stage.num_steps:,}", batch, rate, data]


def _proof(proof: Proof) -> Iterator[list[str]]:
    random = len(proof.prompts) - proof.num_written
    yield ["prompts", f"{len(proof.prompts)}: {proof.num_written} texts, {random} of random ids"]
    yield ["logits", f"at {proof.num_positions:,} positions, of the whole vocabulary"]
    yield ["SHA-256 of the logits", code(proof.logits_sha256)]
    yield ["answers", f"to {proof.num_answers} prompts, by the base's own generation settings"]
    yield ["SHA-256 of their ids", code(proof.answers_sha256)]
    yield ["besides", "tensors, settings, modules, hooks and code of the base; tokenizer"]
    yield ["computed with", ", ".join(f"{name} {code(value)}" for name, value in proof.environment.items())]


def _score(score: Score) -> list[str]:
    asked = code(score.dataset) + (" (trained on)" if score.trained_on else "")
    beside = ", ".join(f"{name} {value:g}" for name, value in score.baselines.items())
    number = _number(score.num_samples)
    return [asked, code(score.section), score.metric, f"{score.value:g}", beside or _NONE, number, code(score.rules)]
