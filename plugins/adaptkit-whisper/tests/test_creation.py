"""Encoders written from a configuration: to train, and to stand in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_audio.clip import AudioClip
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.creation import create, write_stand_in
from adaptkit_whisper.loading import load_encoder, load_preprocessor
from transformers import WhisperFeatureExtractor, WhisperModel

from adaptkit.errors import ModelError
from adaptkit.plugin_manager import get_plugin_manager

TINY: dict[str, Any] = {
    "d_model": 96,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 384,
    "max_source_positions": 50,
}
Noise = Callable[..., AudioClip]


def test_a_tiny_encoder_is_created(tmp_path: Path, noise: Noise) -> None:
    created = get_plugin_manager().get("encoder", "whisper").create(TINY, tmp_path / "new" / "tiny")
    encoder: Any = load_encoder(created)
    inputs = encoder.build_preprocessor()(noise(1.0))
    assert inputs.shape == (80, 100)
    assert encoder([inputs]).shape == (1, 50, 96)


def test_what_is_created_is_stock(tmp_path: Path, noise: Noise) -> None:
    config = {**TINY, "max_source_positions": 75, "num_mel_bins": 40, "hop_length": 200, "sampling_rate": 20000}
    encoder: Any = load_encoder(create(config, tmp_path))
    stock, report = WhisperModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.sampling_rate, extractor.hop_length, extractor.chunk_length) == (20000, 200, 2)
    inputs = encoder.build_preprocessor()(noise(1.2))
    assert inputs.shape == (40, 150)
    with torch.no_grad():
        assert torch.equal(encoder([inputs]), stock.eval().encoder(inputs[None]).last_hidden_state)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    def fingerprint(name: str, **values: Any) -> str:
        state = torch.random.get_rng_state()
        created = create({**TINY, **values}, tmp_path / name)
        assert torch.equal(torch.random.get_rng_state(), state)
        return load_encoder(created).fingerprint()

    assert fingerprint("a") == fingerprint("b") != fingerprint("c", seed=1)


def test_settings_that_make_no_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no setting of a Whisper encoder named 'd_modle'. Did you mean 'd_model'"):
        create({"d_modle": 96}, tmp_path)
    for wrong in ({"encoder_attention_heads": 5}, {"d_model": "wide"}, {"hop_length": 0}, {"sampling_rate": 8000}):
        with pytest.raises(ModelError, match="these settings make no Whisper encoder"):
            create({**TINY, **wrong}, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        WhisperOptions(path="openai/whisper-large-v3", stack=4, feature_layer=20),
        WhisperOptions(path="openai/whisper-small", pool=8, trim=True, revision="main", max_windows=1),
        WhisperOptions(path="/no/such/folder", feature_layer=-6),
        WhisperOptions(path="turbo", backend="openai-whisper", pool=3),
    ],
)
def test_stand_ins_fit_the_options(options: WhisperOptions, tmp_path: Path, noise: Noise) -> None:
    stand_in = write_stand_in(options, tmp_path / "stand_in")
    moved = {"path", "revision", "max_windows"}
    assert stand_in.model_dump(exclude=moved) == options.model_dump(exclude=moved)
    preprocessor = load_preprocessor(stand_in)
    assert preprocessor.windows.mel_bins == (128 if options.path in ("turbo", "openai/whisper-large-v3") else 80)
    inputs = preprocessor(noise(20.0))  # as long as with the real one
    (features,) = load_encoder(stand_in)([inputs])
    assert len(features) == preprocessor.num_positions(inputs)


def test_listing_the_plugin_stays_light() -> None:
    code = (
        "import sys, json, adaptkit_whisper, adaptkit_audio, adaptkit_whisper.checkpoint;"
        "print(json.dumps([m for m in ('torch', 'transformers', 'whisper', 'soundfile') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
