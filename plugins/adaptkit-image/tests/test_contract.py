"""The modality keeps adaptkit's contract."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from adaptkit.testing import check_modality


def _png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), color).save(buffer, format="PNG")
    return buffer.getvalue()


def test_image_keeps_the_contract_of_a_modality(tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    path.write_bytes(_png("blue"))
    cut_short = tmp_path / "cut_short.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(cut_short)
    cut_short.write_bytes(cut_short.read_bytes()[:900])

    good = [
        path,
        _png("red"),
        io.BytesIO(_png("green")),
        Image.new("RGB", (4, 4)),
        np.ones((2, 2), dtype=np.uint8),
    ]
    bad = [
        cut_short,
        b"no picture",
        tmp_path,
        np.ones((2, 2, 7), dtype=np.uint8),
        "https://example.org/a.png",
    ]
    check_modality("image", {}, good, bad)
    check_modality("image", {"max_pixels": 100}, [path], [Image.new("RGB", (11, 10))])
