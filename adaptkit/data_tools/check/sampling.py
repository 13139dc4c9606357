"""A few samples of every kind that a dataset has, read as training reads them: what a dry run has time for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from adaptkit.build import MediaStore
from adaptkit.data.media_types import NUM_BYTES, beginning_of
from adaptkit.errors import DataError
from adaptkit.interfaces import DataSource, Sample, is_stream

NUM_ROWS = 1000
NUM_OF_STREAM = 32
NUM_OF_KIND = 4

Kind = tuple[tuple[str, ...], ...]


@dataclass
class Spread:
    """What a look at samples from everywhere in a dataset finds.

    Attributes:
        num_samples: Samples of the dataset.
        num_rows: Rows looked at.
        num_bad: Those of them that are bad, or of a kind of which each one tried is.
        problems: What is wrong with the first of each kind.
    """

    num_samples: int
    num_rows: int = 0
    num_bad: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def bad_fraction(self) -> float:
        """Share of the rows looked at that are bad."""
        return self.num_bad / max(1, self.num_rows)


def look_at_spread(source: DataSource, media: MediaStore) -> Spread:
    """Read rows from everywhere in a dataset, and all of a few samples of each kind.

    Samples are of one kind if their media have the same modalities, endings of names and first bytes.
    """
    found = Spread(len(source))
    kinds: dict[Kind, list[Sample]] = defaultdict(list)
    counts: dict[Kind, int] = defaultdict(int)
    bad_rows: list[str] = []
    for index in _indices(source):
        found.num_rows += 1
        try:
            sample = source[index]
        except DataError as error:
            bad_rows.append(str(error))
            continue
        kind = _kind(sample)
        counts[kind] += 1
        if len(kinds[kind]) < NUM_OF_KIND:
            kinds[kind].append(sample)
    found.num_bad = len(bad_rows)
    found.problems = bad_rows[:1]
    for kind, samples in kinds.items():
        problems = [problem for sample in samples if (problem := _problem(sample, media)) is not None]
        found.num_bad += counts[kind] if len(problems) == len(samples) else len(problems)
        found.problems += problems[:1]
    return found


def _indices(source: DataSource) -> Sequence[int]:
    if is_stream(source):
        return list(islice(range(len(source)), NUM_OF_STREAM))
    num_rows = min(NUM_ROWS, len(source))
    return [place * len(source) // num_rows for place in range(num_rows)]


def _kind(sample: Sample) -> Kind:
    parts = [part for message in sample.messages for part in message["content"] if part["type"] != "text"]
    return tuple(sorted({(part["type"], *_content_kind(part[part["type"]])) for part in parts}))


def _content_kind(source: Any) -> tuple[str, str]:
    """Ending of the name and first bytes of a medium, as far as it has them."""
    ending, beginning = "", b""
    try:
        if isinstance(source, str) and source[:5].lower() == "data:":
            ending = source.partition(",")[0]
        elif isinstance(source, str | Path):
            ending = Path(source).suffix.lower()
            with Path(source).open("rb") as file:
                beginning = file.read(NUM_BYTES)
        elif hasattr(source, "read"):
            beginning = source.read(NUM_BYTES)
        elif isinstance(source, bytes):
            beginning = source[:NUM_BYTES]
    except (OSError, DataError):  # reading the whole file says what is wrong
        pass
    return ending, beginning_of(beginning).hex()


def _problem(sample: Sample, media: MediaStore) -> str | None:
    try:
        for modality, source in media.encode(sample).media:
            media.prepare(modality, source)
    except DataError as error:
        return f"{sample.location} (id {sample.id!r:.80}): {error}"
    return None
