"""Pairs of rows of two tables, half of which agree in a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.data.media import REMOTE, listed
from adaptkit.errors import DataError, unknown_name

Row = Mapping[str, Any]


def pair_rows(
    first: tuple[Sequence[Row], Path],
    second: tuple[Sequence[Row], Path],
    *,
    on: str,
    num_samples: int,
    seed: int,
    modalities: Sequence[str],
) -> list[Row]:
    """Rows with the keys `first`, `second` and `same`, and the media of both. Equal arguments give equal pairs.

    Args:
        first: Rows of one table, and the folder that their media are relative to.
        second: The same of another.
        on: The column in which the rows of a pair agree or not.
        num_samples: Number of pairs.
        seed: Of the draw.
        modalities: Names of the columns of media.

    Raises:
        DataError: A row lacks the column, or there are no two rows that agree, or none that differ.
    """
    left, right = (_with_absolute_media(*table, modalities, on) for table in (first, second))
    rng = np.random.default_rng(seed)
    pairs: list[Row] = []
    for number in range(num_samples):
        same = number % 2 == 0
        one = left[int(rng.integers(len(left)))]
        others = [row for row in right if (row[on] == one[on]) == same]
        if not others:
            what = "agrees with" if same else "differs from"
            raise DataError(f"no row of the second table {what} {one[on]!r} in the column {on!r}")
        other = others[int(rng.integers(len(others)))]
        media = {name: one[name] + other[name] for name in modalities}
        pairs.append({"id": number, "first": one, "second": other, "same": same, **media})
    return pairs


def _with_absolute_media(rows: Sequence[Row], folder: Path, modalities: Sequence[str], on: str) -> list[dict[str, Any]]:
    absolute = []
    for number, row in enumerate(rows):
        if isinstance(row, DataError):
            raise row
        if not isinstance(row, Mapping) or on not in row:
            columns = row if isinstance(row, Mapping) else ()
            raise DataError(f"row {number} of a table to pair: {unknown_name('column', on, columns)}")
        media = {name: [_absolute(m, folder) for m in listed(row.get(name), name)] for name in modalities}
        absolute.append({**row, **media})
    return absolute


def _absolute(medium: Any, folder: Path) -> Any:
    if isinstance(medium, Mapping) and medium.get("bytes") is None:
        medium = medium.get("path")
    is_path = isinstance(medium, str) and not medium.lower().startswith(("data:", *REMOTE))
    return str(folder.absolute() / medium) if is_path else medium
