"""Features equal those of the stock models, and mistakes are answered in words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_clip import ClipOptions
from adaptkit_clip.encoder import ClipEncoder, load_encoder, merge_patches, wrap_model
from adaptkit_clip.stand_in import write_stand_in
from PIL import Image
from torch import nn
from transformers import AutoModel, CLIPTextConfig, CLIPTextModel, CLIPVisionModel

from adaptkit.errors import DataError, ModelError

KINDS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")


def options(path: Path | str, **values: Any) -> ClipOptions:
    return ClipOptions(path=str(path), **values)


def pixels(encoder: ClipEncoder, *pictures: Image.Image) -> torch.Tensor:
    preprocessor = encoder.build_preprocessor()
    return preprocessor.collate([preprocessor(picture) for picture in pictures])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 4, -1, -2, -5])
def test_features_are_the_stock_models_hidden_states(
    checkpoints: dict[str, Path], kind: str, layer: int, picture: Image.Image
) -> None:
    encoder = load_encoder(options(checkpoints[kind], feature_layer=layer))
    inputs = pixels(encoder, picture, picture.rotate(90))
    stock = AutoModel.from_pretrained(checkpoints[kind])
    stock = getattr(stock, "vision_model", stock)
    with torch.no_grad():
        expected = stock(inputs, output_hidden_states=True).hidden_states[layer]
    if kind.startswith("clip"):
        expected = expected[:, 1:]
    assert torch.equal(encoder(inputs), expected)


def test_the_class_token_comes_first_when_kept(checkpoints: dict[str, Path], picture: Image.Image) -> None:
    without = load_encoder(options(checkpoints["clip"]))
    kept = load_encoder(options(checkpoints["clip"], keep_cls=True))
    inputs = pixels(kept, picture)
    assert torch.equal(kept(inputs)[:, 1:], without(inputs))
    assert kept.build_preprocessor().fixed_positions == 17


def test_class_tokens_of_several_layers_follow_each_other(checkpoints: dict[str, Path], picture: Image.Image) -> None:
    encoder = load_encoder(options(checkpoints["clip_vision_model"], feature_layers=[2, -1, 0], tokens="cls"))
    inputs = pixels(encoder, picture, picture.rotate(90))
    stock = CLIPVisionModel.from_pretrained(checkpoints["clip_vision_model"]).eval()
    with torch.no_grad():
        states = stock(inputs, output_hidden_states=True).hidden_states
    assert torch.equal(encoder(inputs), torch.stack([states[i][:, 0] for i in (2, -1, 0)], 1))
    assert encoder.build_preprocessor().fixed_positions == 3
    assert encoder.num_layers == 4


def test_patches_of_several_layers_follow_each_other(checkpoints: dict[str, Path], picture: Image.Image) -> None:
    several = load_encoder(options(checkpoints["siglip"], feature_layers=[1, 3], merge_size=2))
    inputs = pixels(several, picture)
    each = [load_encoder(options(checkpoints["siglip"], feature_layer=i, merge_size=2))(inputs) for i in (1, 3)]
    assert torch.equal(several(inputs), torch.cat(each, 1))
    assert several.build_preprocessor().fixed_positions == several(inputs).shape[1] == 8


def test_a_stand_in_has_every_layer_that_is_asked_for(tmp_path: Path) -> None:
    named = write_stand_in(options("openai/clip-vit-large-patch14", feature_layers=[4, -6], tokens="cls"), tmp_path)
    assert load_encoder(named).config.num_hidden_layers == 6


def test_layers_beyond_the_feature_layer_are_kept_but_not_run(
    checkpoints: dict[str, Path], picture: Image.Image
) -> None:
    encoder = load_encoder(options(checkpoints["clip"], feature_layer=-3))
    assert len(encoder.model.encoder.layers) == 4  # type: ignore[union-attr, arg-type]
    expected = encoder(pixels(encoder, picture))
    for layer in encoder.model.encoder.layers[2:]:  # type: ignore[union-attr, index]
        layer.forward = None  # type: ignore[union-attr]
    assert torch.equal(encoder(pixels(encoder, picture)), expected)


def test_merging_joins_two_by_two_neighbours() -> None:
    grid = torch.arange(16.0).reshape(1, 16, 1)
    merged = merge_patches(grid, 2)
    assert merged.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_whole_and_vision_only_checkpoints_have_one_fingerprint(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    whole = load_encoder(options(checkpoints["clip"]))
    whole.model.save_pretrained(tmp_path)  # type: ignore[operator]
    assert load_encoder(options(tmp_path)).fingerprint() == whole.fingerprint()


def test_the_fingerprint_follows_a_single_weight(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(options(checkpoints["siglip"], dtype="bfloat16"))
    before = encoder.fingerprint()
    next(encoder.model.parameters()).flatten()[3] += 1
    assert encoder.fingerprint() != before


def test_saved_and_built_again_it_is_the_same(
    checkpoints: dict[str, Path], picture: Image.Image, tmp_path: Path
) -> None:
    encoder = load_encoder(options(checkpoints["siglip"], feature_layer=-3, merge_size=2, pad="none"))
    again = load_encoder(ClipOptions(**encoder.save_pretrained(tmp_path / "saved")))
    assert again.options.feature_layer == -3
    assert again.fingerprint() == encoder.fingerprint()
    assert torch.equal(again(pixels(again, picture)), encoder(pixels(encoder, picture)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_object_is_adopted_and_frozen(checkpoints: dict[str, Path], kind: str, picture: Image.Image) -> None:
    module = AutoModel.from_pretrained(checkpoints[kind])
    encoder = wrap_model(module, {})
    assert encoder is not None
    assert encoder.model is getattr(module, "vision_model", module)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    loaded = load_encoder(options(checkpoints[kind]))
    assert encoder.fingerprint() == loaded.fingerprint()
    assert torch.equal(encoder(pixels(encoder, picture)), loaded(pixels(loaded, picture)))


def test_other_objects_are_not_adopted() -> None:
    text = CLIPTextModel(CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=9))
    for module in (nn.Linear(2, 2), text, object()):
        assert wrap_model(module, {}) is None


def test_training_mode_is_refused_until_something_trains(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(options(checkpoints["clip"]))
    assert not encoder.train().training
    assert not any(module.training for module in encoder.modules())
    adapted = copy.deepcopy(encoder)
    next(adapted.parameters()).requires_grad_()
    assert adapted.train().training


def test_the_dtype_is_as_asked_or_as_stored(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    CLIPVisionModel.from_pretrained(checkpoints["clip"]).to(torch.float16).save_pretrained(tmp_path)
    found = [
        next(load_encoder(options(tmp_path, dtype=dtype)).parameters()).dtype
        for dtype in ("auto", "float32", "bfloat16")
    ]
    assert found == [torch.float16, torch.float32, torch.bfloat16]


def test_inputs_of_another_size_are_refused(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(options(checkpoints["clip"]))
    for shape in ((3, 24, 24), (1, 3, 24, 30), (1, 1, 24, 24)):
        with pytest.raises(DataError, match=r"must be \(num_items, 3, 24, 24\)"):
            encoder(torch.zeros(shape))


@pytest.mark.parametrize("layer", [5, -6])
def test_a_layer_that_is_not_there_is_refused(checkpoints: dict[str, Path], layer: int) -> None:
    with pytest.raises(ModelError, match=f"feature_layer: {layer} is out of range.*4 layers, so use -5 to 4"):
        load_encoder(options(checkpoints["clip"], feature_layer=layer))


def test_options_that_do_not_fit_the_model_are_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="SigLIP models have no class token"):
        load_encoder(options(checkpoints["siglip"], keep_cls=True))
    with pytest.raises(ModelError, match="tokens: SigLIP models have no class token"):
        load_encoder(options(checkpoints["siglip"], tokens="cls"))
    with pytest.raises(ModelError, match=r"feature_layers\[1\]: 5 .* 4 layers"):
        load_encoder(options(checkpoints["clip"], feature_layers=[4, 5]))
    with pytest.raises(ModelError, match="merge_size: 3 does not divide the model's 4 by 4 patches"):
        load_encoder(options(checkpoints["clip"], merge_size=3))
    with pytest.raises(ValueError, match="keep_cls needs merge_size: 1"):
        options("x", keep_cls=True, merge_size=2)
    with pytest.raises(ValueError, match="tokens: cls needs merge_size: 1"):
        options("x", tokens="cls", merge_size=2)
    with pytest.raises(ValueError, match="say one of them"):
        options("x", tokens="cls", keep_cls=True)
    with pytest.raises(ValueError, match="feature_layer or feature_layers, not both"):
        options("x", feature_layer=-1, feature_layers=[4])
