"""Squares and strips: what encoders share in preparing pictures."""

from __future__ import annotations

import numpy as np
import pytest
from adaptkit_image.shapes import as_rgb, check_strip, mean_color, pad_to_square
from PIL import Image

from adaptkit.errors import DataError


@pytest.mark.parametrize("size", [(5, 2), (2, 5), (4, 4), (1, 1), (9, 1)])
def test_a_padded_picture_holds_the_picture_in_its_middle(size: tuple[int, int]) -> None:
    square = np.asarray(pad_to_square(Image.new("RGB", size, "white"), (1, 2, 3)))
    width, height = size
    side = max(size)
    top, left = (side - height) // 2, (side - width) // 2
    expected = np.full((side, side, 3), (1, 2, 3), dtype=np.uint8)
    expected[top : top + height, left : left + width] = 255
    assert np.array_equal(square, expected)


def test_strips_are_refused_before_memory_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"60000 by 1 .* 60000 by 60000"):
        pad_to_square(Image.new("RGB", (60_000, 1)), (0, 0, 0))
    with pytest.raises(DataError, match=r"1 by 60000 .* 336 by 20160000"):
        check_strip(Image.new("RGB", (1, 60_000)), 336)
    check_strip(Image.new("RGB", (400, 1)), 336)


def test_loaded_pictures_become_rgb_and_nothing_else_does() -> None:
    assert as_rgb(Image.new("CMYK", (2, 2)), "clip").mode == "RGB"
    with pytest.raises(DataError, match="the encoder 'clip' takes loaded pictures"):
        as_rgb(b"bytes", "clip")


def test_the_mean_color_is_rounded_down_as_in_llava() -> None:
    assert mean_color((0.48145466, 0.4578275, 0.40821073)) == (122, 116, 104)
