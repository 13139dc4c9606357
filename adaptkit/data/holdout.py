"""A split of a dataset by the content of its samples, and views of some of its rows.

A sample is held out where the hash of what it says, as a fraction of the largest hash, is below the share. So a sample
is on the same side wherever and however often it stands, on every machine, whatever other rows there are; and a larger
share keeps what a smaller one held out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.interfaces import DataSource, Sample, more_of

Progress = Callable[[int, int], None]
"""Called with the rows looked at and in all."""

ContentKeys = Mapping[str, Callable[[Any], str]]
"""Hash of the raw content of a medium, by modality."""

_CHUNK = 256


@dataclass(frozen=True)
class Rows:
    """Some rows of a dataset, as a dataset.

    Attributes:
        source: The whole dataset.
        indices: Its rows, ascending.
    """

    source: DataSource
    indices: Sequence[int]

    @property
    def is_stream(self) -> bool:
        """As of the whole."""
        return bool(getattr(self.source, "is_stream", False))

    @cached_property
    def identity(self) -> str | None:
        """As of the whole, and which rows."""
        whole = getattr(self.source, "identity", None)
        return None if whole is None else f"{whole} {digest_of_rows(self.indices)}"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """The row of that number among these."""
        if not 0 <= index < len(self.indices):
            raise IndexError(f"row {index} of {len(self.indices)}")
        return self.source[self.indices[index]]


def split(source: DataSource, held_out: Sequence[int]) -> tuple[DataSource, DataSource]:
    """The rows to train on, and those that are held out."""
    rest = np.setdiff1d(np.arange(len(source)), held_out, assume_unique=True)
    return Rows(source, rest.tolist()), Rows(source, held_out)


def some_rows(source: DataSource, count: int) -> DataSource:
    """So many rows, always the same ones: drawn from all of it, but the first ones of a stream."""
    rows: Sequence[int] = range(count)
    if not getattr(source, "is_stream", False):
        rows = np.sort(np.random.RandomState(0).permutation(len(source))[:count]).tolist()
    return Rows(source, rows)


def held_out_rows(
    source: DataSource, share: float, keys: ContentKeys, progress: Progress = lambda done, total: None
) -> list[int]:
    """Which rows of a dataset are held out. Every medium is read once; rows that cannot be read are not held out."""
    rows: list[int] = []
    keys = {modality: _remembered(key) for modality, key in keys.items()}
    with ThreadPoolExecutor() as executor:
        for start in range(0, len(source), _CHUNK):
            numbers = range(start, min(start + _CHUNK, len(source)))
            samples = [_sample(source, number) for number in numbers]
            sides = executor.map(lambda sample: sample is not None and _readable_and_held(sample, share, keys), samples)
            rows += [number for number, held_out in zip(numbers, sides) if held_out]
            progress(numbers.stop, len(source))
    return rows


def _remembered(key: Callable[[Any], str]) -> Callable[[Any], str]:
    """The key of a file is computed once, however many rows name it."""
    of_file = cache(key)
    return lambda source: of_file(source) if isinstance(source, str | Path) else key(source)


def _sample(source: DataSource, number: int) -> Sample | None:
    try:
        return source[number]
    except DataError:
        return None


def _readable_and_held(sample: Sample, share: float, keys: ContentKeys) -> bool:
    try:
        return is_held_out(sample, share, keys)
    except DataError:
        return False


def is_held_out(sample: Sample, share: float, keys: ContentKeys) -> bool:
    """Whether a sample is held out: roles, texts, media and their order count; ids, places and file names do not.

    Raises:
        DataError: A medium cannot be read.
    """
    said = [[turn["role"], [_part(part, keys) for part in turn["content"]], more_of(turn)] for turn in sample.messages]
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def _part(part: Mapping[str, Any], keys: ContentKeys) -> list[str]:
    kind = part["type"]
    return [kind, part["text"] if kind == "text" else keys[kind](part[kind])]


def digest_of_rows(rows: Iterable[int]) -> str:
    """16 hexadecimal digits that say which rows are held out."""
    return hashlib.sha256(" ".join(map(str, rows)).encode()).hexdigest()[:16]
