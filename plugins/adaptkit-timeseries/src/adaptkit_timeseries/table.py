"""CSV text as numbers, with the place of whatever is not a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from adaptkit.errors import DataError, unknown_name
from adaptkit_timeseries.options import SeriesOptions
from adaptkit_timeseries.series import Series, column_names

_HOLES = {"", "nan", "na", "n/a", "null", "none", "-"}


def parse_csv(text: str, where: str, options: SeriesOptions) -> Series:
    """Read CSV text.

    Returns:
        A series whose holes are NaN.

    Raises:
        DataError: It is not a table of numbers; the message names line and column.
    """
    lines = _lines(text, where, options.delimiter)
    number, first = next(lines, (0, []))
    if not first:
        raise DataError(f"{where} is empty.")
    check_channels(len(first), where, options)
    names = _header(first, where, number) if options.header else column_names(len(first))
    chosen = _chosen(names, where, options)
    rows = [] if options.header else [_numbers(first, names, chosen, where, number, options)]
    for number, cells in lines:
        check_length(len(rows) + 1, where, options)
        rows.append(_numbers(cells, names, chosen, where, number, options))
    if not rows:
        raise DataError(f"{where} has a header, but no row of values.")
    return Series(np.array(rows, dtype=np.float64), tuple(names[place] for place in chosen))


def check_length(number: int, where: str, options: SeriesOptions) -> None:
    """Raise a `DataError` for so many rows, or more, where that is too many."""
    if number > options.max_length:
        raise DataError(
            f"{where} has {number:,} rows or more, and the limit is {options.max_length:,} (max_length). Shorten or "
            "resample the series, or raise the modality's `max_length`."
        )


def check_channels(number: int, where: str, options: SeriesOptions) -> None:
    """Raise a `DataError` for more columns than a series may have."""
    if number > options.max_channels:
        raise DataError(
            f"{where} has {number:,} columns, more than the limit of {options.max_channels:,} (max_channels). Remove "
            "some, or raise the modality's `max_channels`."
        )


def _lines(text: str, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line; none for an empty one, except at the beginning and at the end."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    blank: list[int] | None = None
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells) or len(cells) > 1:
                yield from ((number, []) for number in blank or [])
                yield reader.line_num, [cell.strip() for cell in cells]
                blank = []
            elif blank is not None:
                blank.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: this is not CSV: {error}.") from error


def _header(cells: list[str], where: str, line: int) -> tuple[str, ...]:
    if all(_is_number(cell) for cell in cells):
        raise DataError(
            f"{where}, line {line}: a header with the names of the columns is missing; the line holds numbers. Write "
            "one, or set the modality's `header: false`."
        )
    seen: set[str] = set()
    for place, cell in enumerate(cells):
        if not cell:
            raise DataError(f"{where}, line {line}, column {place + 1}: the column has no name.")
        if cell in seen:
            raise DataError(f"{where}, line {line}, column {place + 1}: the name {cell!r:.60} is there twice.")
        seen.add(cell)
    return tuple(cells)


def _chosen(names: tuple[str, ...], where: str, options: SeriesOptions) -> list[int]:
    """Places of the columns to read."""
    wanted = list(names) if options.columns is None else options.columns
    for name in wanted:
        if name not in names:
            raise DataError(f"{where}: {unknown_name('column', name, names)}")
    return [names.index(name) for name in wanted]


def _numbers(
    cells: list[str], names: tuple[str, ...], chosen: list[int], where: str, line: int, options: SeriesOptions
) -> list[float]:
    cells = cells or [""] * len(names)
    if len(cells) != len(names):
        raise DataError(f"{where}, line {line}: {len(cells)} cells, but there are {len(names)} columns.")
    return [_number(cells[place], names[place], where, line, options) for place in chosen]


def _number(cell: str, column: str, where: str, line: int, options: SeriesOptions) -> float:
    if cell.lower() in _HOLES:
        if options.holes == "refuse":
            raise DataError(
                f"{where}, line {line}, column {column!r}: the value is missing. Fill the hole, or set the modality's "
                "`holes: interpolate`."
            )
        return float("nan")
    try:
        number = float(cell)
    except ValueError as error:
        raise DataError(
            f"{where}, line {line}, column {column!r}: {cell!r:.60} is not a number. {_remedy(cell)}"
        ) from error
    if np.isinf(number):
        raise DataError(f"{where}, line {line}, column {column!r}: {cell!r:.60} is not finite.")
    return number


def _remedy(cell: str) -> str:
    other = next((mark for mark in ";\t|" if mark in cell), None)
    if other is not None:
        return f"If {other!r} separates the cells, set the modality's `delimiter`."
    if _is_number(cell.replace(",", ".")):
        return "Write a decimal point in place of the comma."
    return "Name the columns that hold numbers in the modality's `columns`."


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
