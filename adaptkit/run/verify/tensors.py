"""Whether the files of tensors hold the workflow's own, as they were saved, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from adaptkit.files.loading import reading
from adaptkit.model.card.facts import Card
from adaptkit.model.card.recording import record_tensors
from adaptkit.model.checkpoint import resize
from adaptkit.model.inspection import describe_components
from adaptkit.model.integrity import read_tensors
from adaptkit.run.verify.files import tensor_files
from adaptkit.run.verify.findings import UNKNOWN, Finding, compared


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """What the files of tensors hold, whether or not it is what it should be.

    Raises:
        ModelError: A file cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for name in tensor_files(folder):
        with reading(folder / name):
            tensors |= load_file(folder / name)
    return tensors


def check_tensors(folder: Path, card: Card | None) -> Iterator[Finding]:
    """Compare every tensor with its record in the card, or else each file with its own checksum."""
    if card is None:
        for name in tensor_files(folder):
            read_tensors(folder / name)
        yield Finding("tensors", UNKNOWN, ["there is no record of each; checksums in the files, where there are, hold"])
        return
    found = record_tensors(stored_tensors(folder).items())
    problems = [f"{name}: missing" for name in card.tensors if name not in found]
    problems += [f"{name}: added ({_kind(record)})" for name, record in found.items() if name not in card.tensors]
    for name, record in found.items():
        recorded = card.tensors.get(name, record)
        if _kind(record) != _kind(recorded):
            problems.append(f"{name}: {_kind(record)} instead of {_kind(recorded)}")
        elif record != recorded:
            problems.append(f"{name}: other values")
    yield compared("tensors", problems, f"{len(found)} tensors, bit by bit")


def check_own(folder: Path, model: Any, config: Any, card: Card | None) -> Iterator[Finding]:
    """Compare names and shapes with those that the workflow has of its own when it is built from its config.

    Args:
        model: It, as its config says, with new tensors.
    """
    stored = stored_tensors(folder)
    resize(model, config, stored)
    own = model.trainable_state_dict()
    shared = {*model.state_dict()} - own.keys() | {name for name, _ in model.base.named_parameters()}
    problems = [f"{name}: missing" for name in own if name not in stored]
    for name, tensor in stored.items():
        if name not in own:
            problems.append(f"{name}: {'a tensor of the base or an encoder' if name in shared else 'no tensor of it'}")
        elif tensor.shape != own[name].shape:
            problems.append(f"{name}: {list(tensor.shape)} instead of {list(own[name].shape)}")
    numbers = sum(tensor.numel() for tensor in stored.values())
    what = f"{len(stored)} tensors, {numbers:,} numbers: none of base or encoders"
    yield compared("own tensors only", problems, what)
    if card is not None:
        yield compared("sizes of the parts", _sizes(model, card), "as the card says")


def _sizes(model: Any, card: Card) -> Iterator[str]:
    said = {part.name: part.num_parameters for part in card.components}
    found = {part.name: part.num_parameters for part in describe_components(model)}
    for name in dict.fromkeys([*found, *said]):
        if said.get(name) != found.get(name):
            yield f"{name}: the card says {_number(said.get(name))} parameters, it has {_number(found.get(name))}"


def _number(number: int | None) -> str:
    return "no" if number is None else f"{number:,}"


def _kind(record: str) -> str:
    """Dtype and shape, without the hash."""
    return record.rpartition(" ")[0]


def check_content(what: str, expected: Mapping[str, Any], found: Mapping[str, Any], keys: tuple[str, ...]) -> Finding:
    """Compare what is recorded of a frozen model with what was loaded."""
    wrong = [key for key in keys if key in expected and expected[key] != found.get(key)]
    shown = [f"{key.replace('_', ' ')}: {found.get(key)} instead of {expected[key]}" for key in wrong]
    return compared(what, shown, f"content hash {found.get('content_hash')}")
