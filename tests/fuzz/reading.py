"""How damaged samples of every format are written, and read as training reads them.

A sample is damaged in its structure, in the bytes of the file that holds it, or in those of its media. It is then
opened, its media are loaded, and its conversation is encoded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import reject

from adaptkit.chat.encoding import encode_conversation
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, DataSource, Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing.tiny import tiny_tokenizer
from tests.fuzz.formats import FORMATS, Trial, World
from tests.fuzz.mutations import mutate_value

MAX_READ = 20
"""Rows that are read of one damaged file."""

_PLACEHOLDER = 10**6


def write_damaged(world: World, name: str, folder: Path, rng: random.Random) -> Trial:
    """Write a damaged sample of a format; an example that cannot be written in that format is not tried."""
    fuzzed = FORMATS[name]
    sample = world.sample(rng)
    if rng.random() > 0.7:
        sample = world.damaged_media(sample, rng)
    row = fuzzed.row(sample, world, rng)
    for _ in range(rng.randrange(3)):
        row = mutate_value(row, rng)
    try:
        return fuzzed.write(world, folder / "rows", row, rng)
    except Exception:  # the libraries that write refuse much, each in its own way
        reject()


def read(trial: Trial, world: World, work: Path) -> str:
    """Read a file as training does: `"read"`, or the kind of its first error."""
    name, values = trial
    context = DataContext(world.folder, world.tags, work / "cache")
    try:
        source = get_plugin_manager().build("data source", name, values, context)
    except DataError as error:
        return _kind(error, "unreadable_file")
    found = [_read_row(source, index, world) for index in range(min(len(source), MAX_READ))]
    return next((kind for kind in found if kind != "read"), "read")


def _read_row(source: DataSource, index: int, world: World) -> str:
    doing = "malformed"
    try:
        sample = source[index]
        doing = "unreadable_media"
        for part in (part for message in sample.messages for part in message["content"]):
            if part["type"] != "text":
                world.modalities[part["type"]].load(part[part["type"]])
        doing = "not_encodable"
        _encode(sample, list(world.modalities))
    except DataError as error:
        return _kind(error, doing)
    return "read"


def _kind(error: DataError, doing: str) -> str:
    return doing if error.kind == "other" else error.kind


@cache
def _tokenizer() -> Any:
    return tiny_tokenizer()


def _encode(sample: Sample, modalities: Sequence[str]) -> None:
    placeholders = {name: _PLACEHOLDER + number for number, name in enumerate(modalities)}
    encode_conversation(
        _tokenizer(), sample.messages, placeholder_ids=placeholders, num_positions=lambda kind, source: 2
    )
