"""Patches and encoder against plain loops, and what holds for series of any size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptkit_timeseries import SeriesPatchesOptions
from adaptkit_timeseries.checkpoint import SeriesPatchesConfig
from adaptkit_timeseries.encoder import SeriesEncoder, SeriesPatchesModel
from adaptkit_timeseries.modality import SeriesModality
from adaptkit_timeseries.patching import SeriesPreprocessor

import adaptkit
from adaptkit.errors import DataError, ModelError
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import tiny_decoder

CONFIG: dict[str, Any] = {"patch_length": 4, "stride": 2, "hidden_size": 16, "num_layers": 2, "num_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    component = get_plugin_manager().get("encoder", "series_patches")
    component.create(CONFIG, tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def encoder(folder: Path) -> SeriesEncoder:
    return get_plugin_manager().build("encoder", "series_patches", {"path": str(folder)})


def series(values: Any) -> Any:
    return SeriesModality().load(np.asarray(values, float))


def patches(values: Any, **config: Any) -> torch.Tensor:
    return SeriesPreprocessor(SeriesPatchesConfig(**{**CONFIG, **config}), 10_000)(series(values))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 7, 29])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_patches_are_those_of_a_plain_loop(length: int, stride: int) -> None:
    values = np.random.default_rng(length).normal(3, 2, size=(length, 2))
    found = patches(values, stride=stride)
    for channel in range(2):
        column = values[:, channel]
        normal = ((column - column.mean()) / column.std() if length > 1 else np.zeros(1)).tolist()
        expected = [normal[0:4]]
        while stride * (len(expected) - 1) + 4 < length:
            start = stride * len(expected)
            expected.append(normal[start : start + 4])
        padded = [part + [normal[-1]] * (4 - len(part)) for part in expected]
        assert torch.allclose(found[channel, :, :4], torch.tensor(padded), atol=1e-5)


def test_a_series_and_its_multiple_differ_in_mean_and_scale_alone() -> None:
    values = np.random.default_rng(0).normal(1, 1, size=(12, 1))
    first, second = patches(values), patches(50 * values)
    assert torch.allclose(first[..., :4], second[..., :4], atol=1e-5)
    assert (first[..., 4:] - second[..., 4:]).abs().min() > 0.1
    assert torch.allclose(patches(-values)[..., 4], -first[..., 4])


@pytest.mark.parametrize("value", [0.0, 1e-300, 3.0, -1e308])
def test_flat_and_extreme_series_give_finite_patches(value: float) -> None:
    flat = patches(np.full((9, 1), value))
    assert flat.isfinite().all()
    assert not flat[..., :4].any()
    assert patches([[0.0], [value], [0.0], [value], [1.0]]).isfinite().all()


def test_features_are_those_of_the_layers_written_out(encoder: SeriesEncoder) -> None:
    """Without torch's transformer layer: attention and feed-forward of each, channel by channel."""
    inputs = patches(np.random.default_rng(2).normal(size=(11, 2)))
    expected = torch.cat([written_out(encoder.model, channel, place) for place, channel in enumerate(inputs)])
    assert torch.allclose(encoder(inputs.unsqueeze(0))[0], expected, atol=1e-5)


def written_out(model: SeriesPatchesModel, channel: torch.Tensor, place: int) -> torch.Tensor:
    width = 16
    hidden = model.embedding(channel)
    for row in range(len(hidden)):
        for half in range(width // 2):
            for number, period in ((row, 10_000), (place, 100)):
                angle = number / period ** (2 * half / width)
                hidden[row, half] += np.sin(angle)
                hidden[row, half + width // 2] += np.cos(angle)
    for layer in model.layers:
        normed: Any = layer.norm1(hidden)  # type: ignore[operator]
        query, key, value = (normed @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, -1)  # type: ignore[union-attr,operator]
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            weights = (query[:, head] @ key[:, head].T / 8**0.5).softmax(-1)
            heads.append(weights @ value[:, head])
        hidden = hidden + layer.self_attn.out_proj(torch.cat(heads, -1))  # type: ignore[union-attr,operator]
        hidden = hidden + layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm2(hidden))))  # type: ignore[operator]
    return model.norm(hidden)  # type: ignore[no-any-return]


def test_channels_do_not_see_each_other(encoder: SeriesEncoder) -> None:
    values = np.random.default_rng(3).normal(size=(12, 2))
    both = encoder(patches(values).unsqueeze(0))[0]
    alone = encoder(patches(values[:, :1]).unsqueeze(0))[0]
    assert torch.allclose(both[: len(alone)], alone, atol=1e-6)


def test_too_many_positions_are_refused_with_all_numbers(encoder: SeriesEncoder) -> None:
    preprocessor = SeriesPreprocessor(encoder.model.config, 20)
    with pytest.raises(DataError, match=r"40 rows and 2 channels .* 38 .* 20"):
        preprocessor(series(np.zeros((40, 2))))
    with pytest.raises(DataError, match=r"channels, patches, 6\).*\(1, 2, 3\)"):
        encoder(torch.zeros(1, 2, 3))


def test_a_saved_encoder_comes_back(encoder: SeriesEncoder, tmp_path: Path) -> None:
    options = encoder.save_pretrained(tmp_path / "again")
    again = get_plugin_manager().build("encoder", "series_patches", options)
    assert again.fingerprint() == encoder.fingerprint()


def test_the_fingerprint_changes_with_the_sizes(encoder: SeriesEncoder, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_heads": 4}))
    other = get_plugin_manager().build("encoder", "series_patches", {"path": str(folder)})
    assert other.fingerprint() != encoder.fingerprint()


def test_a_model_object_is_adopted() -> None:
    model = SeriesPatchesModel(SeriesPatchesConfig(**CONFIG))
    base = tiny_decoder("llama")
    workflow = adaptkit.adapt(base, {"series": {"encoder": model, "encoder_options": {"max_positions": 7}}})
    encoder: Any = workflow.encoders["series"]
    assert encoder.model is model
    assert encoder.options.max_positions == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 18}, "not a multiple of twice num_heads"),
        ({"stride": 9}, "leaves values out"),
        ({"layers": 3}, "layers"),
        ({"model_type": "bert"}, "model_type"),
        ({"intermediate_size": 7}, "does not hold the weights"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=words):
        get_plugin_manager().build("encoder", "series_patches", {"path": str(folder)})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_and_missing_files_are_named(folder: Path, name: str) -> None:
    component = get_plugin_manager().get("encoder", "series_patches")
    options = component.options(path=str(folder))
    (folder / name).write_bytes(b"{")
    with pytest.raises(ModelError, match=name):
        component.build(options)
    (folder / name).unlink()
    assert f"holds no {name}" in component.missing(options)
    shutil.rmtree(folder)
    assert f"no folder at {folder}" in component.missing(options)


@torch.no_grad()
def test_features_may_be_as_wide_as_patches(tmp_path: Path) -> None:
    config = SeriesPatchesConfig(**{**CONFIG, "hidden_size": 8, "patch_length": 6})
    assert config.hidden_size == config.input_size
    encoder = SeriesEncoder(SeriesPatchesModel(config), SeriesPatchesOptions(path="(an object)"))
    workflow = adaptkit.adapt(tiny_decoder("llama"), {"series": {"encoder": encoder, "placeholder_id": 999}})
    inputs = [encoder.build_preprocessor()(series(np.arange(8.0 * n).reshape(-1, 2))) for n in (1, 2)]
    ids = torch.tensor([[999] * sum(item.shape[0] * item.shape[1] for item in inputs) + [5]])
    encoded = adaptkit.EncodedFeatures(workflow.encode("series", inputs))
    logits = [workflow(input_ids=ids, features={"series": given}).logits for given in (inputs, encoded)]
    assert torch.equal(*logits)
