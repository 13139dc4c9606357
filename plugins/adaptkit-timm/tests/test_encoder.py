"""Features and pixels equal timm's own, and what does not fit is answered in words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from adaptkit_timm import TimmOptions
from adaptkit_timm.encoder import TimmEncoder, load_encoder, load_preprocessor, wrap_model
from adaptkit_timm.stand_in import write_stand_in
from PIL import Image
from torch import nn

from adaptkit.errors import DataError, ModelError

KINDS = ("vit", "reg", "convnext", "swin", "resnet", "efficientnet")


def load(path: Path | str, **values: Any) -> TimmEncoder:
    return load_encoder(TimmOptions(path=str(path), **values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, -1, -2])
def test_features_are_the_backbones_own_intermediates(
    folders: dict[str, Path], models: dict[str, Any], kind: str, layer: int, picture: Image.Image
) -> None:
    encoder = load(folders[kind], layer=layer)
    inputs = torch.stack([encoder.build_preprocessor()(p) for p in (picture, picture.rotate(90))])
    with torch.no_grad():
        state = models[kind].forward_intermediates(inputs)[1][layer]
    expected = state.permute(0, 2, 3, 1).reshape(2, -1, state.shape[1])
    found = encoder(inputs)
    assert torch.equal(found, expected)
    assert found.shape[1:] == (encoder.build_preprocessor().fixed_positions, encoder.feature_size)


def test_the_last_stage_of_a_pyramid_is_what_timm_classifies_by(
    folders: dict[str, Path], models: dict[str, Any], picture: Image.Image
) -> None:
    encoder = load(folders["resnet"], layer=-1)
    inputs = encoder.build_preprocessor()(picture)[None]
    state = models["resnet"].forward_features(inputs)
    torch.testing.assert_close(encoder(inputs), state.flatten(2).mT, atol=1e-5, rtol=1e-4)


def test_a_channels_last_models_features_are_in_reading_order(
    folders: dict[str, Path], models: dict[str, Any], picture: Image.Image
) -> None:
    encoder = load(folders["swin"], layer=-1)
    inputs = encoder.build_preprocessor()(picture)[None]
    with torch.no_grad():
        state = models["swin"].patch_embed(inputs)
        for stage in models["swin"].layers:
            state = stage(state)
    assert state.shape == (1, 2, 2, 64)
    torch.testing.assert_close(encoder(inputs), state.flatten(1, 2), atol=1e-5, rtol=1e-4)


def test_prefix_tokens_come_first_when_kept(
    folders: dict[str, Path], models: dict[str, Any], picture: Image.Image
) -> None:
    kept, without = load(folders["reg"], keep_prefix=True), load(folders["reg"])
    inputs = kept.build_preprocessor()(picture)[None]
    with torch.no_grad():
        [(_, prefix)] = models["reg"].forward_intermediates(
            inputs, indices=[0], intermediates_only=True, return_prefix_tokens=True
        )
    assert prefix.shape[1] == 3
    assert torch.equal(kept(inputs)[:, :3], prefix)
    assert torch.equal(kept(inputs)[:, 3:], without(inputs))


def test_layers_beyond_the_chosen_one_are_not_run(folders: dict[str, Path], picture: Image.Image) -> None:
    encoder = load(folders["vit"], layer=0)
    inputs = encoder.build_preprocessor()(picture)[None]
    expected = encoder(inputs)
    for block in encoder.model.blocks[1:]:  # type: ignore[union-attr, index]
        block.forward = None  # type: ignore[union-attr]
    assert torch.equal(encoder(inputs), expected)


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_photographs_are_prepared_as_timm_does(
    folders: dict[str, Path], models: dict[str, Any], kind: str, photograph: Image.Image
) -> None:
    size = models[kind].pretrained_cfg["input_size"] if kind == "convnext" else (3, 64, 64)
    data = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear", "crop_pct": 0.8}
    own = timm.data.create_transform(input_size=size, crop_mode="center", **data, is_training=False)
    assert torch.equal(load_preprocessor(TimmOptions(path=str(folders[kind])))(photograph), own(photograph))


def test_padded_pictures_are_seen_whole(folders: dict[str, Path]) -> None:
    frame = Image.new("RGB", (80, 40), "white")
    frame.paste((0, 0, 0), (2, 2, 78, 38))
    whole = load_preprocessor(TimmOptions(path=str(folders["vit"]), pad="square"))(frame)
    assert whole[0, 32, 0] > 0
    assert whole[0, 32, 32] < 0
    assert load_preprocessor(TimmOptions(path=str(folders["vit"])))(frame)[0].max() < 0
    with pytest.raises(DataError, match="60000 by 1 pixels would be padded"):
        load_preprocessor(TimmOptions(path=str(folders["vit"]), pad="square"))(Image.new("RGB", (60_000, 1)))
    with pytest.raises(DataError, match="60000 by 1 pixels would be resized"):
        load_preprocessor(TimmOptions(path=str(folders["vit"])))(Image.new("RGB", (60_000, 1)))


@pytest.mark.parametrize(("kind", "positions"), [("vit", 25), ("convnext", 9)])
def test_another_size_gives_other_positions(
    folders: dict[str, Path], picture: Image.Image, kind: str, positions: int
) -> None:
    size = 80 if kind == "vit" else 48
    encoder = load(folders[kind], image_size=size)
    inputs = encoder.build_preprocessor()(picture)[None]
    assert inputs.shape == (1, 3, size, size)
    assert encoder(inputs).shape[1] == encoder.build_preprocessor().fixed_positions == positions


def test_position_embeddings_are_resized_as_timm_does(folders: dict[str, Path]) -> None:
    found = load(folders["reg"], image_size=64)
    own = timm.create_model(f"local-dir:{folders['reg']}", pretrained=True, num_classes=0, img_size=64)
    assert found.model.pos_embed.shape[1] == 16 + 3  # type: ignore[index]
    assert torch.equal(found.model.pos_embed, own.pos_embed)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_built_again_it_is_the_same(
    folders: dict[str, Path], kind: str, picture: Image.Image, tmp_path: Path
) -> None:
    sized = {"image_size": 64} if kind in ("vit", "reg", "convnext") else {}
    encoder = load(folders[kind], layer=-1, **sized)
    again = load_encoder(TimmOptions(**encoder.save_pretrained(tmp_path)))
    assert again.fingerprint() == encoder.fingerprint()
    inputs = again.build_preprocessor()(picture)[None]
    assert torch.equal(again(inputs), encoder(inputs))


@pytest.mark.parametrize("kind", ["reg", "convnext"])
def test_a_model_object_is_adopted_and_frozen(
    models: dict[str, Any], kind: str, picture: Image.Image, tmp_path: Path
) -> None:
    module = copy.deepcopy(models[kind])
    encoder = wrap_model(module, {"layer": -1})
    assert encoder is not None
    assert encoder.model is module
    assert not any(parameter.requires_grad for parameter in module.parameters())
    again = load_encoder(TimmOptions(**encoder.save_pretrained(tmp_path)))
    assert again.fingerprint() == encoder.fingerprint(), "a classifier changes no features"
    inputs = again.build_preprocessor()(picture)[None]
    assert torch.equal(again(inputs), encoder(inputs))


def test_other_objects_are_not_adopted() -> None:
    for other in (nn.Linear(2, 2), object()):
        assert wrap_model(other, {}) is None


@pytest.mark.parametrize(
    ("options", "architecture"),
    [
        ({"model": "vit_small_patch14_dinov2.lvd142m", "pretrained": True, "layer": -7}, "test_vit"),
        ({"model": "convnext_base", "path": "file.pt"}, "test_convnext"),
        ({"model": "swin_base_patch4_window7_224", "path": "file.pt"}, "test_convnext"),
        ({"model": "resnet50", "path": "file.pt", "layer": 4}, "test_resnet"),
        (
            {"model": "hf-hub:timm/eva02_tiny_patch14_224.mim_in22k", "pretrained": True, "keep_prefix": True},
            "test_vit",
        ),
    ],
)
def test_stand_ins_are_of_the_same_family(options: dict[str, Any], architecture: str, tmp_path: Path) -> None:
    stand_in = write_stand_in(TimmOptions(**options), tmp_path)
    encoder = load_encoder(stand_in)
    assert encoder.model.pretrained_cfg["architecture"] == architecture  # type: ignore[index]
    assert stand_in.layer == options.get("layer", -2)
    assert encoder(encoder.example_inputs()).shape[1] == encoder.build_preprocessor().fixed_positions


def test_what_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"layer: 3 is out of range.* -3 to 2"):
        load(folders["vit"], layer=3)
    with pytest.raises(ModelError, match="the model has no class or register tokens"):
        load(folders["convnext"], keep_prefix=True)
    with pytest.raises(DataError, match=r"must be \(num_items, 3, 64, 64\)"):
        load(folders["vit"])(torch.zeros(1, 3, 64, 24))
    with pytest.raises(ValueError, match="give path, or pretrained: true, and not both"):
        TimmOptions(path="x", model="resnet18", pretrained=True)
    with pytest.raises(ValueError, match="give path, or pretrained: true, and not both"):
        TimmOptions(model="resnet18")
    with pytest.raises(ValueError, match="needs a model"):
        TimmOptions(pretrained=True)
