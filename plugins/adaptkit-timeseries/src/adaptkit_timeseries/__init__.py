"""The modality `series` and the encoder `series_patches`: what sensors measured, value after value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adaptkit import Options, hookimpl

if TYPE_CHECKING:
    from adaptkit_timeseries.encoder import SeriesEncoder
    from adaptkit_timeseries.modality import SeriesModality
    from adaptkit_timeseries.patching import SeriesPreprocessor

__all__ = ["SeriesOptions", "SeriesPatchesOptions", "register_encoders", "register_modalities"]


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


def _build_modality(options: SeriesOptions) -> SeriesModality:
    from adaptkit_timeseries.modality import SeriesModality

    return SeriesModality(options)


def _write_series(directory: Path, number: int) -> Path:
    from adaptkit_timeseries.stand_in import write_series

    return write_series(directory, number)


def _build_encoder(options: SeriesPatchesOptions) -> SeriesEncoder:
    from adaptkit_timeseries.encoder import load_encoder

    return load_encoder(options)


def _build_preprocessor(options: SeriesPatchesOptions) -> SeriesPreprocessor:
    from adaptkit_timeseries.checkpoint import read_config
    from adaptkit_timeseries.patching import SeriesPreprocessor

    return SeriesPreprocessor(read_config(options.path), options.max_positions)


def _missing(options: SeriesPatchesOptions) -> str | None:
    from adaptkit_timeseries.checkpoint import missing

    return missing(options.path)


def _stand_in(options: SeriesPatchesOptions, directory: Path) -> SeriesPatchesOptions:
    from adaptkit_timeseries.stand_in import write_encoder

    return write_encoder(options, directory)


def _create(config: dict[str, Any], directory: Path) -> SeriesPatchesOptions:
    from adaptkit_timeseries.creation import create_model

    return create_model(config, directory)


def _wrap(module: Any, options: dict[str, Any]) -> SeriesEncoder | None:
    from adaptkit_timeseries.encoder import wrap_model

    return wrap_model(module, options)


def _series_examples(directory: Path) -> Sequence[Any]:
    from adaptkit_timeseries.examples import modality_examples

    return modality_examples(directory)


def _encoder_examples(directory: Path) -> Sequence[Any]:
    from adaptkit_timeseries.examples import encoder_examples

    return encoder_examples(directory)


@hookimpl
def register_modalities(register: Any) -> None:
    """Offer `series`."""
    register(
        name="series",
        build=_build_modality,
        options=SeriesOptions,
        description="Series of numbers in one channel or several, from CSV files and arrays.",
        stand_in=_write_series,
        examples=_series_examples,
    )


@hookimpl
def register_encoders(register: Any) -> None:
    """Offer `series_patches`."""
    register(
        name="series_patches",
        build=_build_encoder,
        options=SeriesPatchesOptions,
        description="A small transformer over patches of each channel, after PatchTST.",
        build_preprocessor=_build_preprocessor,
        stand_in=_stand_in,
        missing=_missing,
        create=_create,
        wrap=_wrap,
        examples=_encoder_examples,
    )
