"""One loaded series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Series:
    """Finite numbers of one channel or several, measured at the same times.

    Attributes:
        values: `(length, channels)`, float64.
        columns: Name of each channel.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.values)

    def content_key(self) -> str:
        """A hash of names and values."""
        named = repr((self.columns, self.values.shape)).encode()
        return hashlib.sha256(named + np.ascontiguousarray(self.values).tobytes()).hexdigest()


def column_names(count: int) -> tuple[str, ...]:
    """Names of columns that have none: 1, 2, 3."""
    return tuple(str(number + 1) for number in range(count))
