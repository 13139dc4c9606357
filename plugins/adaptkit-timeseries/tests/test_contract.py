"""Modality and encoder keep adaptkit's contract."""

from __future__ import annotations

from pathlib import Path

from adaptkit_timeseries.examples import encoder_examples, modality_examples

from adaptkit.testing import check_encoder, check_modality


def test_series_keeps_the_contract_of_a_modality(tmp_path: Path) -> None:
    for example in modality_examples(tmp_path):
        check_modality("series", example.options, example.items, example.bad_items)


def test_series_patches_keeps_the_contract_of_an_encoder(tmp_path: Path) -> None:
    for example in encoder_examples(tmp_path):
        first, *others = example.items
        check_encoder(
            "series_patches",
            example.options,
            first,
            other_items=others,
            bad_items=example.bad_items,
            variants=example.variants,
        )
