"""Small random changes of a picture."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance

MAX_TURN_DEGREES = 15.0
MAX_SHIFT = 0.1
SCALES = (0.85, 1.2)
LIGHT = (0.7, 1.3)


def vary(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn, scale, move and light a picture at random; what comes in at the borders has its mean colour."""
    angle = math.radians(rng.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES))
    scale = math.exp(rng.uniform(math.log(SCALES[0]), math.log(SCALES[1])))
    center_x, center_y = image.width / 2, image.height / 2
    shift_x, shift_y = (rng.uniform(-MAX_SHIFT, MAX_SHIFT) * side for side in image.size)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    # Pillow asks where each pixel of the result comes from
    matrix = (
        cosine, sine, center_x - cosine * (center_x + shift_x) - sine * (center_y + shift_y),
        -sine, cosine, center_y + sine * (center_x + shift_x) - cosine * (center_y + shift_y),
    )  # fmt: skip
    mean = tuple(int(value) for value in np.asarray(image).reshape(-1, 3).mean(0))
    varied = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=mean)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        varied = enhance(varied).enhance(rng.uniform(*LIGHT))
    return varied
