"""Recordings through a whole workflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptkit_audio.modality import AudioModality
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.creation import create
from adaptkit_whisper.loading import load_encoder

import adaptkit
from adaptkit.build import build_processor
from adaptkit.testing import tiny_decoder, tiny_tokenizer

SIZES = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Whisper with a window of one second."""
    folder = tmp_path_factory.mktemp("whisper")
    create({**SIZES, "max_source_positions": 50}, folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(path: str) -> Any:
    encoder = {"name": "whisper", "path": path, "trim": True, "pool": 2}
    return adaptkit.adapt(tiny_decoder("llama"), {"audio": {"encoder": encoder, "projector": "mlp2x_gelu"}})


def tones(*seconds: float) -> list[tuple[np.ndarray[Any, Any], int]]:
    generator = np.random.default_rng(0)
    return [(generator.uniform(-0.3, 0.3, int(8000 * length)), 8000) for length in seconds]


def test_recordings_of_any_length_share_a_batch(model: Any) -> None:
    processor = build_processor(dict(model.config.modalities), tiny_tokenizer())
    items = tones(0.5, 0.1, 2.3)
    texts = ["<audio> one", "<audio> and <audio>"]
    batch = processor(text=texts, audio=[items[0], [items[1], items[2]]])
    counts = (batch["input_ids"] == processor.placeholder_ids["audio"]).sum(1)
    assert counts.tolist() == [13, 3 + 58]
    logits = model(**batch).logits
    for row, (text, own) in enumerate(zip(texts, (items[:1], items[1:]), strict=True)):
        alone = processor(text=text, audio=own)
        seen = alone["input_ids"].shape[1]
        # attention over padding sums in another order
        torch.testing.assert_close(logits[row, -seen:], model(**alone).logits[0], atol=1e-4, rtol=1e-4)


def test_one_recording_with_its_rate_is_one_item(model: Any) -> None:
    processor = build_processor(dict(model.config.modalities), tiny_tokenizer())
    (item,) = tones(0.5)
    one, listed = processor(text="<audio>", audio=item), processor(text="<audio>", audio=[item])
    assert torch.equal(one["input_ids"], listed["input_ids"])


def test_an_adopted_model_is_saved_with_the_workflow(model: Any, path: str, tmp_path: Path) -> None:
    whisper = load_encoder(WhisperOptions(path=path)).model
    base = tiny_decoder("llama")
    spec = {"encoder": whisper, "encoder_options": {"stack": 2}, "projector": "linear"}
    adopted = adaptkit.adapt(base, {"audio": spec})
    adopted.save_pretrained(tmp_path)
    again = adaptkit.load(tmp_path, base=base)
    inputs: Any = again.encoders["audio"]
    clip = AudioModality().load(tones(0.4)[0])
    mels = inputs.build_preprocessor()(clip)[None]
    assert torch.equal(again.encode("audio", mels), adopted.encode("audio", mels))
    assert again.encode("audio", mels).shape == (1, 25, 48)


def test_real_recordings_are_read_and_encoded(path: str) -> None:
    folder = Path(os.environ.get("ADAPTKIT_SHARED") or Path(__file__).parents[4] / "shared") / "data" / "audio"
    if not folder.is_dir():
        pytest.skip(f"no shared test data at {folder}: set ADAPTKIT_SHARED to the folder that holds data/")
    files = sorted(folder.rglob("*.wav"))[::25]
    encoder = load_encoder(WhisperOptions(path=path, trim=True, pool=2))
    preprocessor = encoder.build_preprocessor()
    clips = [AudioModality().load(file) for file in files]
    assert len({clip.sampling_rate for clip in clips}) > 1
    inputs = [preprocessor(clip) for clip in clips]
    features = encoder(preprocessor.collate(inputs))
    for clip, item, found in zip(clips, inputs, features, strict=True):
        assert len(found) == preprocessor.num_positions(item)
        assert abs(len(found) - clip.seconds * 25) < 1 + clip.seconds  # at most one rounded up in a window
        assert bool(found.isfinite().all())
