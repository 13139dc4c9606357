"""The modality keeps adaptkit's contract."""

from __future__ import annotations

from pathlib import Path

from adaptkit_image.examples import make_examples

from adaptkit.testing import check_modality


def test_image_keeps_the_contract_of_a_modality(tmp_path: Path) -> None:
    for example in make_examples(tmp_path):
        check_modality("image", example.options, example.items, example.bad_items)
