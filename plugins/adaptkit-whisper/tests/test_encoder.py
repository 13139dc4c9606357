"""Features, against the stock model and the openai-whisper package."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_audio.clip import AudioClip
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.loading import load_encoder, wrap_model
from torch import nn
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

import adaptkit
from adaptkit.errors import DataError, ModelError
from adaptkit.testing import tiny_decoder

Noise = Callable[..., AudioClip]


def build(path: Path | str, **values: Any) -> Any:
    return load_encoder(WhisperOptions(path=str(path), **values))


def inputs_of(encoder: Any, *clips: AudioClip) -> Any:
    preprocessor = encoder.build_preprocessor()
    return preprocessor.collate([preprocessor(clip) for clip in clips])


@pytest.mark.parametrize("kind", ["generation", "model", "encoder"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3, -1, -2, -4])
def test_features_are_the_stock_models_hidden_states(
    checkpoints: dict[str, Path], stock: Any, kind: str, layer: int, noise: Noise
) -> None:
    encoder = build(checkpoints[kind], feature_layer=layer)
    inputs = inputs_of(encoder, noise(0.48), noise(0.1, seed=1))
    with torch.no_grad():
        expected = stock(inputs, output_hidden_states=True).hidden_states[layer]
    assert torch.equal(encoder(inputs), expected)


def test_inputs_of_a_stock_feature_extractor_are_taken(checkpoints: dict[str, Path], stock: Any, noise: Noise) -> None:
    extractor = WhisperFeatureExtractor()
    clips = [noise(0.4), noise(0.2, seed=1)]
    inputs = extractor([clip.samples for clip in clips], sampling_rate=16000, max_length=48 * 160, return_tensors="pt")[
        "input_features"
    ]
    for options in ({}, {"trim": True}, {"trim": True, "hide_padding": True}):
        encoder = build(checkpoints["model"], **options)
        # a full window each; masks of zeros take another path through attention
        torch.testing.assert_close(encoder(inputs), stock(inputs).last_hidden_state.detach(), atol=1e-5, rtol=1e-5)
    plain = build(checkpoints["model"])
    assert torch.equal(inputs_of(plain, *clips), inputs)


def test_layers_beyond_the_feature_layer_are_kept_but_not_run(checkpoints: dict[str, Path], noise: Noise) -> None:
    encoder = build(checkpoints["model"], feature_layer=1)
    assert (len(encoder.model.layers), encoder.num_layers) == (3, 1)
    expected = encoder(inputs_of(encoder, noise(0.3)))
    for layer in encoder.model.layers[1:]:
        layer.forward = None
    assert torch.equal(encoder(inputs_of(encoder, noise(0.3))), expected)


def test_pooling_and_stacking_join_neighbours(checkpoints: dict[str, Path], noise: Noise) -> None:
    plain = build(checkpoints["model"])
    inputs = inputs_of(plain, noise(0.3), noise(0.4, seed=2))
    states = plain(inputs)
    pooled = build(checkpoints["model"], pool=3)(inputs)
    expected = nn.functional.avg_pool1d(states.transpose(1, 2), 3).transpose(1, 2)
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=0)  # sums in another order
    stacked = build(checkpoints["model"], stack=4)
    assert stacked.feature_size == 96
    assert torch.equal(stacked(inputs)[1, 2], states[1, 8:12].flatten())


def test_a_long_recording_is_several_windows(checkpoints: dict[str, Path], noise: Noise) -> None:
    encoder = build(checkpoints["model"])
    long = noise(1.2)
    parts = [AudioClip(long.samples[start : start + 7680], 16000) for start in range(0, len(long.samples), 7680)]
    assert len(parts) == 3
    expected = encoder(inputs_of(encoder, *parts)).flatten(0, 1)
    (found,) = encoder(inputs_of(encoder, long))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert encoder.build_preprocessor().num_positions(inputs_of(encoder, long)[0]) == 72


def test_lengths_may_differ_within_a_batch(checkpoints: dict[str, Path], noise: Noise) -> None:
    encoder = build(checkpoints["model"], pool=2, trim=True)
    clips = [noise(0.3), noise(1.1, seed=1), noise(0.05, seed=2), noise(0.3, seed=3)]
    batch = inputs_of(encoder, *clips)
    assert isinstance(batch, list)
    features = encoder(batch)
    preprocessor = encoder.build_preprocessor()
    assert [len(item) for item in features] == [preprocessor.num_positions(item) for item in batch] == [8, 28, 2, 8]
    for clip, item in zip(clips, features, strict=True):
        torch.testing.assert_close(encoder(inputs_of(encoder, clip))[0], item, atol=1e-5, rtol=1e-5)
    assert isinstance(encoder(inputs_of(encoder, clips[0], clips[3])), torch.Tensor)


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.0101, 0.02, 0.0201, 0.1, 0.45, 0.48, 0.4801, 0.95, 0.96, 1.3])
@pytest.mark.parametrize("options", [{}, {"pool": 2}, {"stack": 4}, {"pool": 8, "hide_padding": True}])
def test_trimmed_positions_follow_the_length(
    checkpoints: dict[str, Path], seconds: float, options: dict[str, Any], noise: Noise
) -> None:
    encoder = build(checkpoints["model"], trim=True, **options)
    (inputs,) = inputs_of(encoder, noise(seconds))
    count = encoder.build_preprocessor().num_positions(inputs)
    assert len(encoder([inputs])[0]) == count
    share = encoder.options.states_per_feature
    exact = seconds * 50 / share
    assert exact - 1 < count < exact + 2
    if "hide_padding" not in options:
        assert count >= exact


def test_lengths_survive_half_precision(checkpoints: dict[str, Path], noise: Noise) -> None:
    encoder = build(checkpoints["model"], trim=True, dtype="bfloat16")
    (inputs,) = inputs_of(encoder, noise(1.23))
    halved = inputs.to(torch.bfloat16)
    assert encoder([halved])[0].shape == (62, 24)


def test_hidden_padding_and_pooling_before_the_norm_are_qwen2_audios(
    checkpoints: dict[str, Path], stock: Any, noise: Noise
) -> None:
    names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "max_source_positions")
    values = {name: getattr(stock.config, name) for name in (*names, "num_mel_bins")}
    theirs = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**values)).eval()
    theirs.load_state_dict(stock.state_dict())
    ours = build(checkpoints["model"], pool=2, pool_before_norm=True, trim=True, hide_padding=True)
    clips = [noise(0.21), noise(0.48, seed=1), noise(0.333, seed=2)]
    extracted = WhisperFeatureExtractor()(
        [clip.samples for clip in clips],
        sampling_rate=16000,
        max_length=48 * 160,
        return_attention_mask=True,
        return_tensors="pt",
    )
    states, features = theirs._get_feat_extract_output_lengths(extracted["attention_mask"].sum(-1))
    visible = torch.arange(24) < states[:, None]
    mask = torch.zeros(3, 1, 24, 24).masked_fill(~visible[:, None, None], float("-inf"))
    with torch.no_grad():
        expected = theirs(extracted["input_features"], attention_mask=mask).last_hidden_state
    for found, item, count in zip(ours(inputs_of(ours, *clips)), expected, features.tolist(), strict=True):
        torch.testing.assert_close(found, item[:count], atol=1e-5, rtol=1e-5)


def test_saved_and_built_again_it_is_the_same(checkpoints: dict[str, Path], noise: Noise, tmp_path: Path) -> None:
    encoder = build(checkpoints["generation"], feature_layer=2, stack=2, trim=True)
    values = encoder.save_pretrained(tmp_path / "saved")
    again = load_encoder(WhisperOptions(**values))
    assert values == {"path": str(tmp_path / "saved"), "feature_layer": 2, "stack": 2, "trim": True}
    assert again.fingerprint() == encoder.fingerprint()
    assert torch.equal(again(inputs_of(again, noise(0.3))), encoder(inputs_of(encoder, noise(0.3))))


@pytest.mark.parametrize("part", ["generation", "model", "encoder"])
def test_a_model_object_is_adopted_and_frozen(checkpoints: dict[str, Path], part: str, noise: Noise) -> None:
    whole = WhisperForConditionalGeneration.from_pretrained(checkpoints["generation"])
    module = {"generation": whole, "model": whole.model, "encoder": whole.model.encoder}[part]
    encoder = wrap_model(module, {"pool": 2})
    assert encoder is not None
    assert encoder.model is whole.model.encoder
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    loaded = build(checkpoints["generation"], pool=2)
    assert encoder.fingerprint() == loaded.fingerprint()
    assert torch.equal(encoder(inputs_of(encoder, noise(0.3))), loaded(inputs_of(loaded, noise(0.3))))


def test_an_adopted_model_that_was_saved_is_found_by_auto_model(
    checkpoints: dict[str, Path], tmp_path: Path, stock: Any
) -> None:
    encoder = wrap_model(stock, {})
    assert encoder is not None
    encoder.save_pretrained(tmp_path)
    module, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(module, WhisperModel)
    assert not any(report.values())
    again = wrap_model(module, {})
    assert again is not None
    assert again.fingerprint() == encoder.fingerprint()


def test_other_objects_are_not_adopted() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    for module in (nn.Linear(2, 2), CLIPVisionModel(CLIPVisionConfig(**sizes)), object()):
        assert wrap_model(module, {}) is None


def test_training_mode_is_refused_until_something_trains(checkpoints: dict[str, Path]) -> None:
    encoder = build(checkpoints["model"])
    assert not any(module.training for module in encoder.train().modules())
    adapted = copy.deepcopy(encoder)
    next(adapted.parameters()).requires_grad_()
    assert adapted.train().training


def test_the_fingerprint_follows_a_single_weight_and_not_the_limit(checkpoints: dict[str, Path]) -> None:
    encoder = build(checkpoints["model"])
    before = encoder.fingerprint()
    assert build(checkpoints["encoder"], max_windows=3).fingerprint() == before
    next(encoder.model.parameters()).flatten()[3] += 1
    assert encoder.fingerprint() != before


@torch.no_grad()
def test_features_as_wide_as_a_window_are_told_by_their_type(checkpoints: dict[str, Path], noise: Noise) -> None:
    encoder = build(checkpoints["model"], stack=2, trim=True)
    model = adaptkit.adapt(tiny_decoder("llama"), {"audio": {"encoder": encoder, "placeholder_id": 999}})
    (inputs,) = inputs_of(encoder, noise(0.3))
    assert inputs.shape == (81, encoder.feature_size)
    features = model.encode("audio", [inputs])
    ids = torch.tensor([[999] * len(features[0]) + [5]])
    logits = [
        model(input_ids=ids, features={"audio": given}).logits
        for given in ([inputs], adaptkit.EncodedFeatures(features))
    ]
    assert torch.equal(*logits)


def test_inputs_of_another_shape_are_refused(checkpoints: dict[str, Path]) -> None:
    encoder = build(checkpoints["model"])
    for shape in ((1, 80, 47), (1, 40, 48), (80, 48), (1, 80, 0), (1, 81, 48)):
        with pytest.raises(DataError, match=r"\(80, 48\).* 48 frames"):
            encoder(torch.zeros(shape))


def test_options_that_do_not_fit_are_refused(checkpoints: dict[str, Path]) -> None:
    path = checkpoints["model"]
    for layer in (4, -5):
        with pytest.raises(ModelError, match=f"feature_layer: {layer} is out of range.*3 layers, so use -4 to 3"):
            build(path, feature_layer=layer)
    with pytest.raises(ModelError, match="pool: 5 does not divide the 24 states"):
        build(path, pool=5)
    with pytest.raises(ModelError, match="stack: 7 does not divide"):
        build(path, stack=7)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pool": 2, "stack": 2}, "pool or stack, not both"),
        ({"pool_before_norm": True}, "needs pool: 2 or more"),
        ({"pool_before_norm": True, "pool": 2, "feature_layer": -2}, "feature_layer: -1"),
        ({"hide_padding": True}, "needs trim: true"),
        ({"hide_padding": True, "trim": True, "backend": "openai-whisper"}, "needs backend: transformers"),
        ({"revision": "main", "backend": "openai-whisper"}, "revision belongs to model ids"),
    ]
    for options, words in wrong:
        with pytest.raises(ValueError, match=words):
            build(path, **options)
