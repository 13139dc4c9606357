"""The modality `series` and the encoder `series_patches`: what sensors measured, value after value."""

from __future__ import annotations

from adaptkit import hookimpl
from adaptkit.hookspecs import EncoderComponent, ModalityComponent
from adaptkit_timeseries.options import SeriesOptions, SeriesPatchesOptions

__all__ = ["SeriesOptions", "SeriesPatchesOptions", "register_encoders", "register_modalities"]


@hookimpl
def register_modalities(register: type[ModalityComponent]) -> None:
    """Offer `series`."""
    register(
        name="series",
        build="adaptkit_timeseries.modality:SeriesModality",
        options=SeriesOptions,
        description="Series of numbers in one channel or several, from CSV files and arrays.",
        stand_in="adaptkit_timeseries.stand_in:write_series",
        examples="adaptkit_timeseries.examples:modality_examples",
    )


@hookimpl
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer `series_patches`."""
    register(
        name="series_patches",
        build="adaptkit_timeseries.encoder:load_encoder",
        options=SeriesPatchesOptions,
        description="A small transformer over patches of each channel, after PatchTST.",
        build_preprocessor="adaptkit_timeseries.patching:load_preprocessor",
        stand_in="adaptkit_timeseries.stand_in:write_encoder",
        missing="adaptkit_timeseries.checkpoint:missing",
        create="adaptkit_timeseries.creation:create_model",
        wrap="adaptkit_timeseries.encoder:wrap_model",
        examples="adaptkit_timeseries.examples:encoder_examples",
    )
