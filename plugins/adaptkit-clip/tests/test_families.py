"""SigLIP 2 and DINOv2: features equal the stock models' own, special tokens and shapes are as the options say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_clip import ClipOptions
from adaptkit_clip.encoder import load_encoder, wrap_model
from adaptkit_clip.preprocessing import load_preprocessor
from adaptkit_clip.stand_in import write_stand_in
from PIL import Image
from transformers import AutoModel, Siglip2ImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from adaptkit.errors import DataError, ModelError

DINO_KINDS = ("dinov2", "dinov2_with_registers")


def options(path: Path | str, **values: Any) -> ClipOptions:
    return ClipOptions(path=str(path), **values)


def stock_states(path: Path, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    stock = AutoModel.from_pretrained(path).eval()
    stock = getattr(stock, "vision_model", stock)
    with torch.no_grad():
        states: tuple[torch.Tensor, ...] = stock(**inputs, output_hidden_states=True).hidden_states
    return states


@pytest.mark.parametrize(("kind", "prefix"), [("dinov2", 1), ("dinov2_with_registers", 3)])
def test_dinov2s_patches_come_without_class_and_register_tokens(
    checkpoints: dict[str, Path], kind: str, prefix: int, picture: Image.Image
) -> None:
    encoder = load_encoder(options(checkpoints[kind], feature_layers=[0, 2, -1]))
    inputs = encoder.build_preprocessor()(picture)[None]
    states = stock_states(checkpoints[kind], pixel_values=inputs)
    assert torch.equal(encoder(inputs), torch.cat([states[i][:, prefix:] for i in (0, 2, -1)], 1))


def test_special_tokens_come_in_the_models_order(checkpoints: dict[str, Path], picture: Image.Image) -> None:
    path = checkpoints["dinov2_with_registers"]
    inputs = load_preprocessor(options(path))(picture)[None]
    state = stock_states(path, pixel_values=inputs)[-2]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"keep_cls": True}, [0, *range(3, 19)]),
        ({"keep_registers": True}, list(range(1, 19))),
        ({"keep_cls": True, "keep_registers": True}, list(range(19))),
        ({"tokens": "cls"}, [0]),
    ]
    for values, tokens in cases:
        encoder = load_encoder(options(path, **values))
        assert torch.equal(encoder(inputs), state[:, tokens])
        assert encoder.build_preprocessor().fixed_positions == len(tokens)


@pytest.mark.parametrize("pad", ["none", "square", "stretch"])
def test_dinov2s_side_is_its_processors_and_only_none_crops(
    checkpoints: dict[str, Path], tmp_path: Path, pad: Any
) -> None:
    folder = Path(shutil.copytree(checkpoints["dinov2"], tmp_path / "dinov2"))
    processor = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 30, "width": 30})
    processor.save_pretrained(folder)
    frame = Image.new("RGB", (40, 40), "white")
    frame.paste((0, 0, 0), (2, 2, 38, 38))
    encoder = load_encoder(options(folder, pad=pad))
    inputs = encoder.build_preprocessor()(frame)[None]
    assert inputs.shape == (1, 3, 30, 30)
    assert encoder(inputs).shape == (1, 25, 16)
    corner_is_white = bool(inputs[0, 0, 0, 0] > 0)
    assert corner_is_white == (pad != "none")
    if pad == "none":
        assert torch.equal(inputs, torch.tensor(processor(frame)["pixel_values"][0])[None])


@pytest.mark.parametrize("kind", ["siglip2", "siglip2_vision_model"])
def test_naflex_features_are_the_stock_models(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = load_encoder(options(checkpoints[kind], pad="none", max_num_patches=20, feature_layer=-1))
    preprocessor = encoder.build_preprocessor()
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((50, 20), (20, 50), (33, 33), (1, 300))]
    inputs = [preprocessor(picture) for picture in pictures]
    found = encoder(preprocessor.collate(inputs))
    processor = Siglip2ImageProcessorPil(patch_size=6, max_num_patches=20)
    stock_inputs = processor(pictures, return_tensors="pt")
    expected = stock_states(checkpoints[kind], **stock_inputs)[-1]
    counts = stock_inputs["pixel_attention_mask"].sum(1).tolist()
    assert len(set(counts)) > 1
    for row, (item, count) in enumerate(zip(inputs, counts, strict=True)):
        assert preprocessor.num_positions(item) == count == len(found[row])
        # The stock model pads to 20 patches and masks; sums are taken in another order
        torch.testing.assert_close(found[row], expected[row, :count], atol=2e-5, rtol=1e-4)


def test_naflex_pictures_of_one_shape_are_one_batch(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(options(checkpoints["siglip2"], pad="none"))
    preprocessor = encoder.build_preprocessor()
    inputs = [preprocessor(Image.new("RGB", (40, 20), color)) for color in ("red", "blue")]
    batch = preprocessor.collate(inputs)
    assert isinstance(batch, torch.Tensor)
    features = encoder(batch)
    assert features.shape[:2] == (2, preprocessor.num_positions(inputs[0]))
    with pytest.raises(DataError, match=r"\(tiles, 3, height, width\)"):
        encoder(torch.zeros(1, 1, 3, 7, 6))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("siglip2", {}, r"pad: square: the model \(SigLIP 2 NaFlex\) takes a picture in its own shape. Set pad: none"),
        ("siglip2", {"tiles": {}}, "pad: square: the model"),
        ("siglip2", {"pad": "none", "merge_size": 2}, "need not divide evenly"),
        ("siglip2", {"pad": "none", "keep_cls": True}, "no class token"),
        ("dinov2", {"keep_registers": True}, "has no register tokens"),
        ("clip", {"keep_registers": True}, "has no register tokens"),
        ("clip", {"max_num_patches": 9}, "takes pictures of one shape"),
    ],
)
def test_what_a_family_has_not_is_refused(
    checkpoints: dict[str, Path], kind: str, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_encoder(options(checkpoints[kind], **values))


def test_a_processor_of_other_patches_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints["siglip2"], tmp_path / "naflex"))
    Siglip2ImageProcessorPil(patch_size=8).save_pretrained(folder)
    with pytest.raises(ModelError, match="patches of 8 pixels, its model takes 6"):
        load_encoder(options(folder, pad="none"))


@pytest.mark.parametrize(
    ("path", "model_type", "pad"),
    [
        ("google/siglip2-base-patch16-naflex", "siglip2_vision_model", "none"),
        ("google/siglip2-base-patch16-256", "siglip_vision_model", "square"),
        ("facebook/dinov2-base", "dinov2", "square"),
        ("facebook/dinov2-with-registers-large", "dinov2_with_registers", "square"),
    ],
)
def test_stand_ins_are_told_by_name(path: str, model_type: str, pad: Any, tmp_path: Path) -> None:
    assert load_encoder(write_stand_in(options(path, pad=pad), tmp_path)).config.model_type == model_type


@pytest.mark.parametrize("kind", [*DINO_KINDS, "siglip2"])
def test_objects_are_adopted_saved_and_built_again(
    checkpoints: dict[str, Path], kind: str, picture: Image.Image, tmp_path: Path
) -> None:
    encoder = wrap_model(AutoModel.from_pretrained(checkpoints[kind]), {"pad": "none"})
    assert encoder is not None
    assert encoder.fingerprint() == load_encoder(options(checkpoints[kind], pad="none")).fingerprint()
    again = load_encoder(ClipOptions(**encoder.save_pretrained(tmp_path)))
    inputs = again.build_preprocessor()(picture)[None]
    assert torch.equal(again(inputs), encoder(inputs))
    assert again(again.example_inputs()).shape[-1] == 16
