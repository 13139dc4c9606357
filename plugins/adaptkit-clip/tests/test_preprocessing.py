"""Padding, resizing and normalising, against an independent implementation with Pillow and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adaptkit_clip import ClipOptions
from adaptkit_clip.preprocessing import ClipPreprocessor, load_preprocessor
from adaptkit_image.shapes import pad_to_square
from PIL import Image

from adaptkit.errors import DataError, ModelError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SHAPES = [(31, 20), (20, 31), (30, 21), (24, 24), (1, 1), (3, 3), (3, 50), (200, 1), (333, 251)]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def reference(picture: Image.Image, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """LLaVA's expand2square, then bicubic resizing and normalising."""
    width, height = picture.size
    big = max(width, height)
    square = Image.new("RGB", (big, big), tuple(int(255 * value) for value in mean))
    square.paste(picture, ((big - width) // 2, (big - height) // 2))
    values = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float64) / 255
    return torch.from_numpy(((values - np.array(mean)) / np.array(std)).transpose(2, 0, 1)).float()


def build(path: Path, **options: object) -> ClipPreprocessor:
    return load_preprocessor(ClipOptions.model_validate({"path": str(path), **options}))


@pytest.mark.parametrize("size", SHAPES)
def test_clip_pads_with_its_mean_color_and_normalises(checkpoints: dict[str, Path], size: tuple[int, int]) -> None:
    found = build(checkpoints["clip"])(noise(*size))
    expected = reference(noise(*size), 24, CLIP_MEAN, CLIP_STD)
    # float32 against float64 arithmetic, on values below 3
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", SHAPES)
def test_siglip_uses_its_own_mean(checkpoints: dict[str, Path], size: tuple[int, int]) -> None:
    found = build(checkpoints["siglip_vision_model"])(noise(*size))
    expected = reference(noise(*size), 24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_stretched_pictures_with_imagenets_mean_are_lavins(checkpoints: dict[str, Path]) -> None:
    picture = noise(31, 20)
    found = build(checkpoints["clip"], pad="stretch", normalization="imagenet")(picture)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    values = np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC)).astype(np.float64) / 255
    expected = torch.from_numpy(((values - np.array(mean)) / np.array(std)).transpose(2, 0, 1)).float()
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_settings_tell_apart_what_changes_pictures(checkpoints: dict[str, Path]) -> None:
    ways = [{}, {"pad": "none"}, {"pad": "stretch"}, {"normalization": "imagenet"}]
    assert len({build(checkpoints["clip"], **way).settings() for way in ways}) == len(ways)


def test_an_odd_remainder_of_padding_goes_right_and_down() -> None:
    square = np.asarray(pad_to_square(Image.new("RGB", (5, 2), "white"), (1, 2, 3)))
    assert [tuple(row[0]) for row in square] == [(1, 2, 3), (255,) * 3, (255,) * 3, (1, 2, 3), (1, 2, 3)]
    square = np.asarray(pad_to_square(Image.new("RGB", (2, 5), "white"), (1, 2, 3)))
    assert [tuple(pixel) for pixel in square[0]] == [(1, 2, 3), (255,) * 3, (255,) * 3, (1, 2, 3), (1, 2, 3)]


def test_without_padding_clip_crops_the_centre(checkpoints: dict[str, Path]) -> None:
    picture = noise(48, 24)
    found = build(checkpoints["clip"], pad="none")(picture)
    expected = reference(picture.crop((12, 0, 36, 24)), 24, CLIP_MEAN, CLIP_STD)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_a_checkpoints_own_processor_is_used(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoints["clip"] / name).read_bytes())
    plain = build(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "feature_extractor_type": "CLIPFeatureExtractor", '
        '"size": 24, "crop_size": 24, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 0.5, 0.25]}'
    )
    found = build(tmp_path)
    expected = reference(noise(31, 20), 24, (0.1, 0.2, 0.3), (1, 0.5, 0.25))
    torch.testing.assert_close(found(noise(31, 20)), expected, atol=2e-6, rtol=0)
    assert found.settings() != plain.settings()


def test_a_processor_of_another_size_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((checkpoints["clip"] / "config.json").read_bytes())
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 32}, "crop_size": 32}')
    with pytest.raises(ModelError, match=r"\(3, 32, 32\).*\(3, 24, 24\)"):
        build(tmp_path)(noise(9, 9))


def test_a_broken_processor_file_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((checkpoints["clip"] / "config.json").read_bytes())
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        build(tmp_path)


def test_an_endless_strip_is_refused_before_it_is_padded(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"60000 by 3 .* 60000 by 60000"):
        build(checkpoints["clip"])(Image.new("RGB", (60_000, 3)))


def test_positions_follow_patches_class_token_and_merging(checkpoints: dict[str, Path]) -> None:
    path = checkpoints["clip"]
    cases = [({}, 16), ({"keep_cls": True}, 17), ({"merge_size": 2}, 4), ({"merge_size": 4}, 1)]
    for options, positions in cases:
        preprocessor = build(path, **options)
        assert preprocessor.fixed_positions == positions
        assert preprocessor.num_positions(preprocessor(noise(5, 5))) == positions


def test_an_endless_strip_is_refused_before_it_is_resized(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"400000 by 1 .* 24 by 9600000"):
        build(checkpoints["clip"], pad="none")(Image.new("RGB", (400_000, 1)))
