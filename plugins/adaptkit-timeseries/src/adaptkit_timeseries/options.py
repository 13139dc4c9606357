"""Options of the modality `series` and the encoder `series_patches`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adaptkit import Options


class SeriesOptions(Options):
    """What is read of a file, and limits.

    Attributes:
        columns: Names of the columns to read, in this order; all of them where not given.
        header: Whether the first line names the columns; where it does not, their names are 1, 2, 3.
        delimiter: What stands between the cells of a line.
        holes: Empty cells and NaN: `refuse` them, or `interpolate` between their neighbours in the column.
        max_length: Rows beyond which a series is refused.
        max_channels: Columns beyond which a file or an array is refused.
        max_bytes: Size beyond which a file is refused before it is read.
    """

    columns: list[str] | None = Field(default=None, min_length=1)
    header: bool = True
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    holes: Literal["refuse", "interpolate"] = "refuse"
    max_length: int = Field(default=10_000, ge=1)
    max_channels: int = Field(default=4096, ge=1)
    max_bytes: int = Field(default=16 * 1024**2, ge=1)


class SeriesPatchesOptions(Options):
    """Which weights, and how long a series may become.

    Attributes:
        path: Folder with config.json and model.safetensors, as `create` writes it.
        max_positions: Patches of all channels together beyond which a series is refused.
        dtype: Of the weights; `auto` keeps what the folder stores.
    """

    path: str = Field(min_length=1)
    max_positions: int = Field(default=1024, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
