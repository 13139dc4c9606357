"""Odd pictures on their whole way: from a file, through the modality, into inputs of every kind."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptkit_clip import ClipOptions
from adaptkit_clip.encoder import load_encoder
from adaptkit_image.modality import ImageModality
from PIL import Image

from adaptkit.errors import DataError

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "square": ("clip", {}),
    "stretched": ("siglip", {"pad": "stretch"}),
    "cropped": ("dinov2", {"pad": "none"}),
    "tiles": ("clip", {"tiles": {}}),
    "own shape": ("siglip2", {"pad": "none"}),
}


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **settings)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rotated(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8  # shown turned by a quarter to the left
    return encoded(picture, "PNG", exif=exif)


def claiming(width: int, height: int) -> bytes:
    """A BMP of a few bytes whose header claims a size."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


GOOD = {
    "one pixel": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "CMYK": encoded(noise(40, 30).convert("CMYK"), "JPEG"),
    "animated GIF": encoded(noise(40, 30), "GIF", save_all=True, append_images=[noise(30, 40).resize((40, 30))]),
    "animated WebP": encoded(noise(40, 30), "WEBP", save_all=True, append_images=[noise(40, 30).rotate(180)]),
    "rotated by EXIF": rotated(noise(70, 20)),
    "flat panorama": encoded(noise(3000, 1), "PNG"),
    "tall strip": encoded(noise(1, 3000), "PNG"),
}


@pytest.mark.parametrize("way", WAYS)
def test_odd_pictures_become_features(checkpoints: dict[str, Path], way: str) -> None:
    kind, options = WAYS[way]
    encoder = load_encoder(ClipOptions.model_validate({"path": str(checkpoints[kind]), **options}))
    preprocessor, modality = encoder.build_preprocessor(), ImageModality()
    for name, source in GOOD.items():
        inputs = preprocessor(modality.load(source))
        features = encoder(preprocessor.collate([inputs]))[0]
        assert len(features) == preprocessor.num_positions(inputs), name
        assert torch.isfinite(features).all(), name


@pytest.mark.parametrize("way", ["square", "tiles", "own shape"])
def test_a_rotation_in_exif_is_undone_before_tiles_are_counted(checkpoints: dict[str, Path], way: str) -> None:
    kind, options = WAYS[way]
    encoder = load_encoder(ClipOptions.model_validate({"path": str(checkpoints[kind]), **options}))
    preprocessor, picture = encoder.build_preprocessor(), noise(70, 20)
    upright = preprocessor(picture.transpose(Image.Transpose.ROTATE_90))
    assert torch.equal(preprocessor(ImageModality().load(rotated(picture))), upright)
    assert not torch.equal(preprocessor(picture).flatten()[:100], upright.flatten()[:100])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_cut_short_and_enormous_ones_never_reach_an_encoder(tmp_path: Path, kind: str) -> None:
    raw = encoded(noise(64, 64), kind)
    path = tmp_path / "cut"
    path.write_bytes(raw[: len(raw) * 2 // 3])
    for bad, words in ((path, str(path)), (claiming(50_000, 50_000), "limit of 64,000,000")):
        with pytest.raises(DataError, match=words):
            ImageModality().load(bad)
