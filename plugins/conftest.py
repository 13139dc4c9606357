"""Pictures that tests of several plugins share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Noise of an odd shape: 91 wide, 60 high."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 91, 3), dtype=np.uint8))


@pytest.fixture
def photograph() -> Image.Image:
    """A photograph of the shared test data."""
    shared = os.environ.get("ADAPTKIT_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    path = Path(shared).expanduser() / "data" / "images" / "mscoco_twocat_000000039769.jpg"
    if not path.is_file():
        pytest.skip(f"no shared test data at {shared}: set ADAPTKIT_SHARED to the folder that holds data/")
    with Image.open(path) as opened:
        return opened.convert("RGB")
