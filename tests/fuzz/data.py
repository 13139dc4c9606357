"""Damaged data, thousands of samples of every format: each must be read or be refused with a `DataError`.

    python -m tests.fuzz.data --samples 10000 --seed 0

A sample is damaged in its structure, in the bytes of the file that holds it, or in those of its media. It is then read
as training reads it: opened, its media loaded, its conversation encoded. Sample N of a format depends on the seed and N
alone, so that a failure can be tried again with `--format NAME --only N`.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click
from rich.status import Status
from rich.table import Table

from adaptkit.chat.encoding import encode_conversation
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, DataSource, Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing.mutations import mutate_value
from adaptkit.testing.tiny import tiny_tokenizer
from tests.fuzz.formats import FORMATS, Trial, World
from tests.fuzz.fuzzing import end_with, fuzzing_console

MAX_READ = 20
"""Rows that are read of one damaged file."""

_PLACEHOLDER = 10**6
_MAX_DRAWS = 100


@dataclass
class Outcomes:
    """What became of the samples of one format.

    Attributes:
        read: How many could be used.
        refused: How many were refused, by kind.
        failures: Number and traceback of those that raised anything else.
        slowest_s: Longest time of one sample.
    """

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0


def fuzz(name: str, numbers: Sequence[int], seed: int, progress: Callable[[int], None] = lambda done: None) -> Outcomes:
    """Try damaged samples of one format.

    Args:
        name: One of `FORMATS`.
        numbers: Which samples.
        seed: Together with format and number it decides what a sample is, and how it is damaged.
        progress: Called with how many are done.
    """
    outcomes = Outcomes()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        world = World.build(Path(folder))
        for done, number in enumerate(numbers):
            work = world.folder / "work"
            work.mkdir()
            trial = _written(world, name, work, random.Random(f"{seed} {name} {number}"))
            start = time.perf_counter()
            try:
                kind = _use(trial, world, work)
                if kind is None:
                    outcomes.read += 1
                else:
                    outcomes.refused[kind] += 1
            except Exception:  # what this looks for
                outcomes.failures.append((number, traceback.format_exc()))
            outcomes.slowest_s = max(outcomes.slowest_s, time.perf_counter() - start)
            shutil.rmtree(work)
            progress(done + 1)
    return outcomes


def _written(world: World, name: str, folder: Path, rng: random.Random) -> Trial:
    """A damaged sample of a format, on disk; drawn again where it cannot be written in that format."""
    fuzzed = FORMATS[name]
    for attempt in range(_MAX_DRAWS):
        sample = world.sample(rng)
        if rng.random() < 0.3:
            sample = world.damaged_media(sample, rng)
        row = fuzzed.row(sample, world, rng)
        for _ in range(rng.randrange(3)):
            row = mutate_value(row, rng)
        try:
            return fuzzed.write(world, folder / f"rows{attempt}", row, rng)
        except Exception as error:  # the libraries that write refuse much, each in its own way
            reason = error
    raise AssertionError(f"nothing could be written in the format {name!r}") from reason


def _use(trial: Trial, world: World, work: Path) -> str | None:
    """Read a file as training does; what was first wrong with it, None where all was right."""
    name, values = trial
    context = DataContext(world.folder, world.tags, work / "cache")
    try:
        source = get_plugin_manager().build("data source", name, values, context)
    except DataError as error:
        return _kind(error, "unreadable_file")
    found = [_use_row(source, index, world) for index in range(min(len(source), MAX_READ))]
    return next((kind for kind in found if kind is not None), None)


def _use_row(source: DataSource, index: int, world: World) -> str | None:
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
    return None


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


class _quiet(warnings.catch_warnings):  # noqa: N801  (a context manager that reads like a function)
    """Libraries warn of what they find in damaged files."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


def _table(results: Mapping[str, Outcomes]) -> Table:
    table = Table(title="Damaged samples", title_justify="left")
    for column in ("format", "samples", "read", "data errors", "other exceptions", "slowest"):
        table.add_column(column, justify="left" if column in ("format", "data errors") else "right")
    for name, found in results.items():
        num_refused = found.refused.total()
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.refused.most_common())
        total = found.read + num_refused + len(found.failures)
        table.add_row(
            name, f"{total:,}", f"{found.read:,}", f"{num_refused:,}: {kinds}", f"{len(found.failures):,}",
            f"{found.slowest_s:.2f} s",
        )  # fmt: skip
    return table


def _shown_in(status: Status, name: str) -> Callable[[int], None]:
    return lambda done: status.update(f"{name} {done:,}")


@click.command()
@click.option("--samples", default=10_000, show_default=True, type=click.IntRange(1), help="Samples of each format.")
@click.option("--seed", default=0, show_default=True, help="Of what the samples are, and how they are damaged.")
@click.option("--format", "names", multiple=True, type=click.Choice(list(FORMATS)), help="Only this one; repeatable.")
@click.option("--only", type=int, help="Only the sample of this number, to try a failure again.")
def main(samples: int, seed: int, names: tuple[str, ...], only: int | None) -> None:
    """Read damaged data of every format: each sample must be read or be refused with a data error."""
    console = fuzzing_console()
    numbers = range(samples) if only is None else [only]
    results: dict[str, Outcomes] = {}
    for name in names or FORMATS:
        with console.status(name) as status:
            results[name] = fuzz(name, numbers, seed, _shown_in(status, name))
    end_with(console, _table(results), "--format", seed, {name: found.failures for name, found in results.items()})


if __name__ == "__main__":
    main()
