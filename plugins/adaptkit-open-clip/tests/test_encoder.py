"""Features and pixels equal open_clip's own, and what does not fit is answered in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_open_clip import OpenClipOptions
from adaptkit_open_clip.encoder import OpenClipEncoder, load_encoder, load_preprocessor, wrap_model
from adaptkit_open_clip.stand_in import write_stand_in
from open_clip.transform import image_transform
from PIL import Image
from torch import nn

from adaptkit.errors import DataError, ModelError

SETTINGS: dict[str, Any] = {
    "mean": (0.1, 0.2, 0.3),
    "std": (0.5, 0.6, 0.7),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def load(path: Path | str, **values: Any) -> OpenClipEncoder:
    return load_encoder(OpenClipOptions.model_validate({"path": str(path), **values}))


@pytest.mark.parametrize("kind", ["vit", "coca_like", "resnet", "timm"])
@pytest.mark.parametrize("layer", [0, -1, -2])
def test_features_are_the_towers_own_intermediates(
    folders: dict[str, Path], whole_models: dict[str, Any], kind: str, layer: int, picture: Image.Image
) -> None:
    encoder = load(folders[kind], layer=layer)
    inputs = torch.stack([encoder.build_preprocessor()(p) for p in (picture, picture.rotate(90))])
    with torch.no_grad():
        states = whole_models[kind].visual.forward_intermediates(inputs)["image_intermediates"]
    expected = states[layer].permute(0, 2, 3, 1).reshape(2, -1, states[layer].shape[1])
    found = encoder(inputs)
    assert torch.equal(found, expected)
    assert found.shape[1:] == (encoder.build_preprocessor().fixed_positions, encoder.feature_size)


@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_the_class_token_comes_first_when_kept(
    folders: dict[str, Path], whole_models: dict[str, Any], kind: str, picture: Image.Image
) -> None:
    kept, without = load(folders[kind], keep_cls=True), load(folders[kind])
    inputs = kept.build_preprocessor()(picture)[None]
    with torch.no_grad():
        output = whole_models[kind].visual.forward_intermediates(inputs, output_extra_tokens=True)
    assert torch.equal(kept(inputs)[:, :1], output["image_intermediates_prefix"][-2])
    assert torch.equal(kept(inputs)[:, 1:], without(inputs))


def test_a_transformers_features_are_those_before_pooling(
    folders: dict[str, Path], whole_models: dict[str, Any], picture: Image.Image
) -> None:
    visual = whole_models["vit"].visual
    encoder = load(folders["vit"], layer=-1, keep_cls=True)
    inputs = encoder.build_preprocessor()(picture)[None]
    expected = visual.transformer(visual._embeds(inputs))
    torch.testing.assert_close(encoder(inputs), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_photographs_are_prepared_as_open_clip_does(
    folders: dict[str, Path], photograph: Image.Image, mode: Any, interpolation: Any
) -> None:
    options = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 9}
    found = load_preprocessor(OpenClipOptions(path=str(folders["vit"]), preprocess=options))(photograph)  # type: ignore[arg-type]
    own = image_transform(48, is_train=False, **{**SETTINGS, **options})
    assert torch.equal(found, own(photograph))


def test_the_folders_own_settings_are_taken(folders: dict[str, Path], picture: Image.Image) -> None:
    preprocessor = load_preprocessor(OpenClipOptions(path=str(folders["vit"])))
    assert torch.equal(preprocessor(picture), image_transform(48, is_train=False, **SETTINGS)(picture))
    square = load_preprocessor(OpenClipOptions(path=str(folders["vit"]), pad="square"))
    padded = Image.new("RGB", (91, 91), (25, 51, 76))
    padded.paste(picture, (0, 15))
    assert torch.equal(square(picture), image_transform(48, is_train=False, **SETTINGS)(padded))


def test_settings_of_a_bare_file_are_those_of_its_published_weights() -> None:
    from adaptkit_open_clip.tower import model_config, preprocess_config

    for model, mean, mode in (("ViT-B-16-SigLIP", (0.5,) * 3, "squash"), ("ViT-B-32", (0.48145466,), "shortest")):
        options = OpenClipOptions(path="weights.pt", model=model)
        settings = preprocess_config(model_config(None, model), None, options)
        assert tuple(settings["mean"])[: len(mean)] == mean
        assert settings["resize_mode"] == mode


def test_endless_strips_are_refused(folders: dict[str, Path]) -> None:
    strip = Image.new("RGB", (200_000, 1))
    for options in ({"pad": "square"}, {"preprocess": {"resize_mode": "shortest"}}):
        preprocessor = load_preprocessor(OpenClipOptions.model_validate({"path": str(folders["vit"]), **options}))
        with pytest.raises(DataError, match="200000 by 1 pixels would be"):
            preprocessor(strip)
    assert load_preprocessor(OpenClipOptions(path=str(folders["vit"])))(strip).shape == (3, 48, 48)


@pytest.mark.parametrize("kind", ["vit", "resnet", "timm"])
def test_saved_and_built_again_it_is_the_same(
    folders: dict[str, Path], kind: str, picture: Image.Image, tmp_path: Path
) -> None:
    encoder = load(folders[kind], layer=0, preprocess={"fill_color": 3}, pad="square")
    again = load_encoder(OpenClipOptions(**encoder.save_pretrained(tmp_path)))
    inputs = again.build_preprocessor()(picture)[None]
    assert torch.equal(inputs[0], encoder.build_preprocessor()(picture))
    assert torch.equal(again(inputs), encoder(inputs))


def test_models_and_towers_are_adopted(
    folders: dict[str, Path], whole_models: dict[str, Any], picture: Image.Image
) -> None:
    import copy

    loaded = load(folders["vit"])
    for module in (copy.deepcopy(whole_models["vit"]), copy.deepcopy(whole_models["vit"].visual)):
        encoder = wrap_model(module, {"preprocess": SETTINGS})
        assert encoder is not None
        assert encoder.model is getattr(module, "visual", module)
        inputs = encoder.build_preprocessor()(picture)[None]
        assert torch.equal(encoder(inputs), loaded(inputs))
        with pytest.raises(ModelError, match="name it beside it"):
            encoder.save_pretrained("nowhere")
    for other in (nn.Linear(2, 2), object(), whole_models["vit"].transformer):
        assert wrap_model(other, {}) is None


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"path": "hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "layer": -7}, "VisionTransformer"),
        ({"path": "weights.pt", "model": "RN50", "layer": 4}, "ModifiedResNet"),
        ({"path": "weights.pt", "model": "ViT-B-16-SigLIP"}, "VisionTransformer"),
    ],
)
def test_stand_ins_fit_the_options(options: dict[str, Any], kind: str, tmp_path: Path) -> None:
    stand_in = write_stand_in(OpenClipOptions(**options), tmp_path)
    encoder = load_encoder(stand_in)
    assert type(encoder.model).__name__ == kind
    assert encoder(encoder.example_inputs()).shape[1] == encoder.build_preprocessor().fixed_positions
    kept = {"path", "model"}
    assert stand_in.model_dump(exclude=kept) == OpenClipOptions(**options).model_dump(exclude=kept)


def test_the_dtype_is_as_asked(folders: dict[str, Path], picture: Image.Image) -> None:
    encoder = load(folders["vit"], dtype="bfloat16")
    inputs = encoder.build_preprocessor()(picture)[None].bfloat16()
    assert encoder(inputs).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"layer: 3 is out of range.* -3 to 2"):
        load(folders["vit"], layer=3)
    with pytest.raises(ModelError, match="the tower has no class token"):
        load(folders["resnet"], keep_cls=True)
    with pytest.raises(DataError, match=r"must be \(num_items, 3, 48, 48\)"):
        load(folders["vit"])(torch.zeros(1, 3, 48, 24))
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        OpenClipOptions.model_validate({"path": "x", "preprocess": {"size": 3}})
