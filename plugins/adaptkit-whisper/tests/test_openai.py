"""The openai-whisper package as backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_audio.clip import AudioClip
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.loading import load_encoder
from whisper.model import ModelDimensions, Whisper

Noise = Callable[..., AudioClip]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Whisper, str]:
    """A tiny model and its file."""
    torch.manual_seed(0)
    dims = ModelDimensions(80, 24, 24, 2, 3, 20, 8, 24, 2, 1)
    whisper = Whisper(dims).eval()
    path = tmp_path_factory.mktemp("openai") / "tiny.pt"
    torch.save({"dims": dims.__dict__, "model_state_dict": whisper.state_dict()}, path)
    return whisper, str(path)


def test_features_are_those_of_the_package(model: tuple[Whisper, str], noise: Noise) -> None:
    encoder = load_encoder(WhisperOptions(path=model[1], backend="openai-whisper"))
    inputs = encoder.build_preprocessor()(noise(0.3))[None]
    with torch.no_grad():
        assert torch.equal(encoder(inputs), model[0].encoder(inputs))


def test_both_backends_agree_on_the_same_weights(model: tuple[Whisper, str], noise: Noise, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "openai-whisper", "trim": True, "feature_layer": -2, "pool": 2}
    openai: Any = load_encoder(WhisperOptions(path=model[1], **options))
    saved = openai.save_pretrained(tmp_path / "again")
    again = load_encoder(WhisperOptions(**saved))
    assert again.fingerprint() == openai.fingerprint()
    from adaptkit_whisper.creation import create

    sizes = {"d_model": 24, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 96}
    created = create({**sizes, "max_source_positions": 24}, tmp_path / "stock")
    stock: Any = load_encoder(created.model_copy(update={"trim": True, "feature_layer": -2, "pool": 2}))
    stock.model.load_state_dict({_stock_name(name): t for name, t in openai.model.state_dict().items()})
    clip = noise(0.7, 22050)
    found = openai([openai.build_preprocessor()(clip)])[0]
    expected = stock([stock.build_preprocessor()(clip)])[0]
    assert found.shape == expected.shape
    # mel spectrograms differ by rounding, and attention scales queries and keys apart
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def _stock_name(name: str) -> str:
    renamed = {
        "positional_embedding": "embed_positions.weight",
        "blocks.": "layers.",
        ".attn.query.": ".self_attn.q_proj.",
        ".attn.key.": ".self_attn.k_proj.",
        ".attn.value.": ".self_attn.v_proj.",
        ".attn.out.": ".self_attn.out_proj.",
        ".attn_ln.": ".self_attn_layer_norm.",
        ".mlp.0.": ".fc1.",
        ".mlp.2.": ".fc2.",
        ".mlp_ln.": ".final_layer_norm.",
        "ln_post.": "layer_norm.",
    }
    for old, new in renamed.items():
        name = name.replace(old, new)
    return name
