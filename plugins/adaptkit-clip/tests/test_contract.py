"""The encoder keeps adaptkit's contract, with every kind of checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adaptkit.testing import check_encoder


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model", "siglip", "siglip_vision_model"])
def test_clip_keeps_the_contract_of_an_encoder(checkpoints: dict[str, Path], kind: str, picture: Image.Image) -> None:
    path = str(checkpoints[kind])
    variants = [
        {"path": path, "feature_layer": -1},
        {"path": path, "pad": "none"},
        {"path": path, "merge_size": 2},
        {"path": path, "dtype": "bfloat16"},
    ]
    check_encoder("clip", {"path": path}, picture, variants=variants)


def test_dinov2_keeps_it(checkpoints: dict[str, Path], picture: Image.Image) -> None:
    path = str(checkpoints["dinov2_with_registers"])
    variants = [
        {"path": path, "keep_cls": True},
        {"path": path, "keep_registers": True},
        {"path": path, "pad": "none"},
        {"path": path, "tiles": {}},
    ]
    check_encoder("clip", {"path": path}, picture, variants=variants)


@pytest.mark.parametrize("kind", ["siglip2", "siglip2_vision_model"])
def test_pictures_in_their_own_shape_keep_it(checkpoints: dict[str, Path], kind: str, picture: Image.Image) -> None:
    options = {"path": str(checkpoints[kind]), "pad": "none"}
    check_encoder("clip", options, picture, variants=[{**options, "max_num_patches": 9}])


def test_tiles_keep_it(checkpoints: dict[str, Path]) -> None:
    path = str(checkpoints["clip_vision_model"])
    wide = Image.effect_noise((90, 31), 80).convert("RGB")
    variants = [{"path": path}, {"path": path, "tiles": {"max": 2}}, {"path": path, "tiles": {}, "pad": "stretch"}]
    check_encoder("clip", {"path": path, "tiles": {}}, wide, variants=variants)


@pytest.mark.parametrize("options", [{"keep_cls": True}, {"merge_size": 4}, {"dtype": "float16"}])
def test_its_options_keep_the_contract_too(
    checkpoints: dict[str, Path], picture: Image.Image, options: dict[str, object]
) -> None:
    check_encoder("clip", {"path": str(checkpoints["clip_vision_model"]), **options}, picture)
