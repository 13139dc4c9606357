"""Reading, hashing and showing series of numbers."""

from __future__ import annotations

import hashlib
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptkit.errors import DataError
from adaptkit.files.media import SourceReader
from adaptkit.files.text import decode_text
from adaptkit.interfaces import Modality
from adaptkit_timeseries.options import SeriesOptions
from adaptkit_timeseries.series import Series, column_names
from adaptkit_timeseries.showing import render
from adaptkit_timeseries.table import check_channels, check_length, parse_csv

ACCEPTED = (
    "a CSV or .npy file (path, bytes or file object), an array (length,) or (length, channels), a list of numbers or "
    "of rows, or a pandas DataFrame or Series"
)
_NPY = b"\x93NUMPY"


class SeriesModality(Modality):
    """Series of numbers, one channel or several, as `Series`."""

    name = "series"
    tag = "<series>"
    plural = "series"

    def __init__(self, options: SeriesOptions | None = None) -> None:
        self.options = options or SeriesOptions()
        self._reader = SourceReader("series", ACCEPTED, self.options.max_bytes, plural="series")

    def load(self, source: Any) -> Series:
        """Read one series.

        Args:
            source: A path, bytes or a binary file object of a CSV or .npy file; an array `(length,)` or
                `(length, channels)`; a list of numbers or of rows; a pandas DataFrame or Series.

        Raises:
            DataError: It is missing, no table of numbers, empty, has holes, or is beyond the limits.
        """
        if isinstance(source, Series):
            return source
        if isinstance(source, list | tuple) or hasattr(source, "__array__"):
            return self._checked(self._from_values(source), f"the {type(source).__name__}")
        raw, where = self._reader.read(source)
        return self._checked(self._parse(raw, where), where)

    def content_key(self, source: Any) -> str:
        """SHA-256 of a file's bytes and of how they are read, or of the values in memory."""
        if isinstance(source, Series | list | tuple) or hasattr(source, "__array__"):
            return self.load(source).content_key()
        reading = self.options.model_dump_json(exclude={"max_length", "max_bytes"})
        return hashlib.sha256(reading.encode() + self._reader.read(source)[0]).hexdigest()

    def to_html(self, item: Series) -> str:
        """A line chart of each channel, as inline SVG."""
        return render(item)

    def doubts(self, item: Series) -> list[str]:
        """A series that never changes."""
        constant = len(item.values) > 1 and bool((item.values == item.values[0]).all())
        return ["all its rows have the same values"] if constant else []

    # -- files ---------------------------------------------------------------------------------------------------

    def _parse(self, raw: bytes, where: str) -> Series:
        if raw.startswith(_NPY):
            try:
                check_npy(raw, where, self.options)
                return self._from_values(np.load(io.BytesIO(raw), allow_pickle=False))
            except DataError:
                raise
            except Exception as error:  # numpy raises many types on damaged headers
                raise DataError(f"{where} is a damaged .npy file, or holds no numbers: {error}.") from error
        return parse_csv(decode_text(raw, where), where, self.options)

    # -- values in memory ----------------------------------------------------------------------------------------

    def _from_values(self, source: Any) -> Series:
        names = getattr(source, "columns", None)
        array = _to_array(source)
        if array.ndim == 1:
            array = array[:, None]
        check_channels(array.shape[1], f"the {type(source).__name__}", self.options)
        columns = column_names(array.shape[1]) if names is None else tuple(map(str, names))
        if self.options.columns is None or names is None:
            return Series(array, columns)
        missing = [name for name in self.options.columns if name not in columns]
        if missing:
            raise DataError(f"the {type(source).__name__} has no column {missing[0]!r}; it has {', '.join(columns)}.")
        places = [columns.index(name) for name in self.options.columns]
        return Series(array[:, places], tuple(self.options.columns))

    def _checked(self, series: Series, where: str) -> Series:
        """The series without holes, or the reason why it cannot be used."""
        values = series.values
        if not values.size:
            raise DataError(f"{where} is empty: {values.shape[0]} rows, {values.shape[1]} channels.")
        check_length(len(values), where, self.options)
        if np.isinf(values).any():
            raise DataError(f"{where}{_first(np.isinf(values), series)}: the value is not finite.")
        holes = np.isnan(values)
        if not holes.any():
            return series
        if self.options.holes == "refuse":
            raise DataError(
                f"{where}{_first(holes, series)}: the value is missing ({int(holes.sum()):,} are). Fill the holes, or "
                "set the modality's `holes: interpolate`."
            )
        if holes.all(0).any():
            name = series.columns[int(holes.all(0).argmax())]
            raise DataError(f"{where}, column {name!r}: every value is missing, so there is nothing to interpolate.")
        return Series(_interpolated(values, holes), series.columns)


def check_npy(raw: bytes, where: str, options: SeriesOptions) -> None:
    """Compare what the header of a .npy file says with the limits and with what follows, before anything is made of it.

    Raises:
        DataError: It is beyond the limits, or there is less than it says.
        ValueError: It is damaged, or says of what cannot be numbers.
    """
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format holds names of fields")
    shape, _, dtype = readers[version](stream)
    if len(shape) not in (1, 2) or min(shape) < 0 or dtype.hasobject:
        raise ValueError(f"{dtype} of shape {shape}")
    check_channels(shape[1] if len(shape) == 2 else 1, where, options)
    check_length(shape[0], where, options)
    size, there = math.prod(shape) * dtype.itemsize, len(raw) - stream.tell()
    if size > there:
        raise ValueError(f"its header promises {size:,} bytes, {there:,} are there")


def _to_array(source: Any) -> NDArray[np.float64]:
    """Numbers `(length,)` or `(length, channels)`, NaN at holes."""
    try:
        array = np.asarray(source.to_numpy() if hasattr(source, "to_numpy") else source)
        if array.dtype == object or not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
            raise ValueError(f"it holds {array.dtype}, not numbers")
        if np.issubdtype(array.dtype, np.complexfloating):
            raise ValueError("it holds complex numbers")
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"the {type(source).__name__} is not a series: {error}. Give {ACCEPTED}.") from error
    if array.ndim not in (1, 2):
        raise DataError(f"an array of shape {array.shape} is not a series: give (length,) or (length, channels).")
    return array.astype(np.float64)


def _first(mask: NDArray[np.bool_], series: Series) -> str:
    row, column = np.argwhere(mask)[0]
    return f", row {row + 1} of values, column {series.columns[column]!r}"


def _interpolated(values: NDArray[np.float64], holes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Straight lines across holes; the nearest value before the first one and after the last."""
    rows = np.arange(len(values))
    filled = values.copy()
    for channel, mask in enumerate(holes.T):
        filled[mask, channel] = np.interp(rows[mask], rows[~mask], values[~mask, channel])
    return filled
