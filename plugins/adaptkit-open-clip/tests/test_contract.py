"""The encoder keeps adaptkit's contract, over every kind of tower."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adaptkit.testing import check_encoder


@pytest.mark.parametrize("kind", ["vit", "resnet", "timm"])
def test_open_clip_keeps_the_contract_of_an_encoder(folders: dict[str, Path], kind: str, picture: Image.Image) -> None:
    path = str(folders[kind])
    variants = [{"path": path, "layer": -1}, {"path": path, "pad": "square"}]
    variants += [{"path": path, "preprocess": {"resize_mode": "shortest"}}, {"path": path, "dtype": "bfloat16"}]
    check_encoder("open_clip", {"path": path}, picture, variants=variants if kind == "vit" else ())
