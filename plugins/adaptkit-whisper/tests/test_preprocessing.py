"""Spectrograms, resampling and windows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptkit_audio.clip import AudioClip
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.loading import load_preprocessor
from adaptkit_whisper.preprocessing import OpenAILogMel, TransformersLogMel, WhisperPreprocessor
from transformers import WhisperFeatureExtractor
from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

from adaptkit.errors import DataError, ModelError

Noise = Callable[..., AudioClip]


def build(path: Path, **values: object) -> WhisperPreprocessor:
    return load_preprocessor(WhisperOptions.model_validate({"path": str(path), **values}))


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_both_backends_mel_filters_agree_to_rounding(mel_bins: int, noise: Noise) -> None:
    chunks = [noise(30.0).samples, noise(3.7, seed=1).samples]
    ours = TransformersLogMel(WhisperFeatureExtractor(feature_size=mel_bins), mel_bins)(chunks, N_SAMPLES)
    theirs = torch.stack([log_mel_spectrogram(pad_or_trim(torch.from_numpy(chunk)), mel_bins) for chunk in chunks])
    # filters are float64 in one and float32 in the other, before a logarithm
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert torch.equal(OpenAILogMel(mel_bins)(chunks, N_SAMPLES), theirs)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_any_rate_is_resampled(checkpoints: dict[str, Path], rate: int) -> None:
    def tone(at: int) -> AudioClip:
        # two tones that fade in and out, since an abrupt start is a click at any rate
        time = np.arange(round(0.4 * at)) / at
        both = np.sin(2 * np.pi * 440 * time) + 0.5 * np.sin(2 * np.pi * 1900 * time)
        return AudioClip((0.3 * both * np.sin(np.pi * time / 0.4) ** 2).astype(np.float32), at)

    preprocessor = build(checkpoints["model"])
    found, expected = preprocessor(tone(rate)), preprocessor(tone(16000))
    assert found.shape == expected.shape
    loud = expected > expected.max() - 1  # within 40 dB of the loudest: all else is the resampler's floor
    assert float((found - expected)[loud].abs().max()) < 0.05


def test_windows_follow_the_models_positions(checkpoints: dict[str, Path], noise: Noise) -> None:
    preprocessor = build(checkpoints["model"])
    for seconds, windows in [(0.1, 1), (0.48, 1), (0.4801, 2), (2.0, 5)]:
        inputs = preprocessor(noise(seconds))
        assert inputs.shape == (80, 48 * windows)
        assert preprocessor.num_positions(inputs) == 24 * windows


def test_each_window_is_what_the_stock_extractor_makes_of_it(checkpoints: dict[str, Path], noise: Noise) -> None:
    clip = noise(1.0)
    found = build(checkpoints["model"], trim=True)(clip)
    extractor = WhisperFeatureExtractor()
    for number, start in enumerate(range(0, 16000, 7680)):
        made = extractor(
            clip.samples[start : start + 7680],
            sampling_rate=16000,
            max_length=7680,
            return_attention_mask=True,
            return_tensors="pt",
        )
        part = found[:, 48 * number : 48 * (number + 1)]
        torch.testing.assert_close(part[:80], made["input_features"][0], atol=1e-5, rtol=0)
        assert torch.equal(part[80].long(), made["attention_mask"][0].long())


def test_the_number_of_windows_is_limited(checkpoints: dict[str, Path], noise: Noise) -> None:
    one = build(checkpoints["model"], max_windows=1, stack=2)
    assert one.fixed_positions == 12
    with pytest.raises(DataError, match=r"1\.0 seconds .* 3 .* 0\.48 seconds"):
        one(noise(1.0))
    assert build(checkpoints["model"]).fixed_positions is None
    assert build(checkpoints["model"], max_windows=1, trim=True).fixed_positions is None


def test_a_checkpoints_own_settings_are_used(checkpoints: dict[str, Path], tmp_path: Path, noise: Noise) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoints["model"] / name, tmp_path)
    plain = build(tmp_path)
    WhisperFeatureExtractor(n_fft=512, hop_length=80, dither=0.1).save_pretrained(tmp_path)
    own = build(tmp_path)
    assert own.settings() != plain.settings()
    assert own(noise(0.48)).shape == (80, 96)  # twice as many frames a second
    assert torch.equal(own(noise(0.2)), own(noise(0.2)))  # no random noise
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, "feature_size": 128}))
    with pytest.raises(ModelError, match=r"128 .*\(feature_size\).* 80"):
        build(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        build(tmp_path)


def test_openai_has_filters_of_two_sizes() -> None:
    with pytest.raises(ModelError, match="80 and 128 mel bins; the model takes 40"):
        OpenAILogMel(40)
