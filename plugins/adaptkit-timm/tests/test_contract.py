"""The encoder keeps adaptkit's contract, over flat backbones and pyramids."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from adaptkit.testing import check_encoder


@pytest.mark.parametrize("kind", ["reg", "efficientnet"])
def test_timm_keeps_the_contract_of_an_encoder(folders: dict[str, Path], kind: str, picture: Image.Image) -> None:
    path = str(folders[kind])
    variants = [{"path": path, "layer": -1}, {"path": path, "pad": "square"}, {"path": path, "dtype": "bfloat16"}]
    variants += [{"path": path, "keep_prefix": True}]
    check_encoder("timm", {"path": path}, picture, variants=variants if kind == "reg" else ())
