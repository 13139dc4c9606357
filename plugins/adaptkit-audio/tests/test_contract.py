"""The modality keeps adaptkit's contract."""

from __future__ import annotations

from pathlib import Path

from adaptkit_audio.examples import make_examples

from adaptkit.testing import check_modality


def test_audio_keeps_the_contract_of_a_modality(tmp_path: Path) -> None:
    for example in make_examples(tmp_path):
        check_modality("audio", example.options, example.items, example.bad_items)
