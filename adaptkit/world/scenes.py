"""Scenes of one to three coloured shapes on a 3x3 grid, and their drawings."""

import bisect
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adaptkit.chat.boxes import Box

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SIZES = ("small", "large")
CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
BOX_BINS = 32

Split = Literal["train", "dev", "test"]

_RGB = {
    "red": (214, 48, 44),
    "green": (58, 176, 76),
    "blue": (44, 108, 230),
    "yellow": (246, 216, 50),
    "purple": (152, 62, 196),
    "orange": (244, 132, 32),
}
_RADII = {"small": (8.0, 9.0), "large": (12.0, 13.0)}
_CELL_SIZE = IMAGE_SIZE / 3
_CENTER_JITTER = 2.0
_MAX_OVERLAP = 2.0
_SUPERSAMPLING = 4
_NUM_OBJECTS_LIMITS = (0.2, 0.55)

_Attributes = tuple[str, str, str, str]


@dataclass(frozen=True)
class SceneObject:
    """One shape: its attributes in words and its geometry in pixels."""

    shape: str
    color: str
    size: str
    cell: str
    x: float = field(compare=False)
    y: float = field(compare=False)
    radius: float = field(compare=False)

    @cached_property  # questions ask for it many times
    def box(self) -> Box:
        """`(x1, y1, x2, y2)` as fractions of the image, on a grid of 1/32."""
        corners = (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)
        x1, y1, x2, y2 = (min(max(round(c / IMAGE_SIZE * BOX_BINS), 0), BOX_BINS) / BOX_BINS for c in corners)
        return x1, y1, x2, y2


@dataclass(frozen=True)
class Scene:
    """Objects in reading order (cell by cell), and a seed for all that is noise in the drawing."""

    objects: tuple[SceneObject, ...]
    noise_seed: int = field(default=0, compare=False)


def split_of(scene: Scene) -> Split:
    """The one split a scene belongs to, by its attributes alone: 80% train, 10% dev, 10% test."""
    return _split_of_attributes([(o.shape, o.color, o.size, o.cell) for o in scene.objects])


def sample_scene(rng: np.random.Generator, split: Split | None = None) -> Scene:
    """One scene, of any split or the given one; shapes, colours and cells are distinct within it."""
    while True:
        attributes = _sample_attributes(rng)
        if split is not None and _split_of_attributes(attributes) != split:
            continue
        objects = tuple(_place(rng, *names) for names in attributes)
        if not any(_overlap(a, b) for a, b in itertools.combinations(objects, 2)):
            return Scene(objects, noise_seed=int(rng.integers(2**31)))


def iter_scenes(seed: int, split: Split) -> Iterator[Scene]:
    """An endless stream of scenes of one split."""
    rng = np.random.default_rng(seed)
    while True:
        yield sample_scene(rng, split)


def sample_scenes(seed: int, num: int, split: Split) -> list[Scene]:
    """`num` scenes of one split; the same seed gives the same scenes."""
    return list(itertools.islice(iter_scenes(seed, split), num))


def render(scene: Scene) -> Image.Image:
    """Draws a scene as a 64x64 RGB image; the same scene always gives the same pixels."""
    return Image.fromarray(render_array(scene))


def render_array(scene: Scene) -> NDArray[np.uint8]:
    """Like `render`, as an array `(64, 64, 3)`."""
    rng = np.random.default_rng(scene.noise_seed)
    side = IMAGE_SIZE * _SUPERSAMPLING
    background = rng.integers(22, 60) + rng.integers(-8, 9, size=3)
    image = Image.new("RGB", (side, side), _rgb(background))
    draw = ImageDraw.Draw(image)
    for item in scene.objects:
        fill = _rgb(np.array(_RGB[item.color]) + rng.integers(-14, 15, size=3))
        _draw(draw, item.shape, item.x * _SUPERSAMPLING, item.y * _SUPERSAMPLING, item.radius * _SUPERSAMPLING, fill)
    pixels = np.asarray(image.reduce(_SUPERSAMPLING), dtype=np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 6))
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _sample_attributes(rng: np.random.Generator) -> list[_Attributes]:
    num_objects = bisect.bisect(_NUM_OBJECTS_LIMITS, rng.random()) + 1
    shapes = rng.permutation(len(SHAPES)).tolist()[:num_objects]
    colors = rng.permutation(len(COLORS)).tolist()[:num_objects]
    cells = sorted(rng.permutation(len(CELLS)).tolist()[:num_objects])
    sizes = rng.integers(len(SIZES), size=num_objects).tolist()
    return [
        (SHAPES[shape], COLORS[color], SIZES[size], CELLS[cell])
        for shape, color, size, cell in zip(shapes, colors, sizes, cells, strict=True)
    ]


def _split_of_attributes(attributes: list[_Attributes]) -> Split:
    content = ";".join(",".join(names) for names in attributes)
    bucket = hashlib.sha256(content.encode()).digest()[0] % 10
    return "dev" if bucket == 0 else "test" if bucket == 1 else "train"


def _place(rng: np.random.Generator, shape: str, color: str, size: str, cell: str) -> SceneObject:
    radius, shift_x, shift_y = rng.random(3).tolist()
    low, high = _RADII[size]
    radius = low + radius * (high - low)
    row, column = divmod(CELLS.index(cell), 3)
    x, y = (
        min(max((i + 0.5) * _CELL_SIZE + (2 * shift - 1) * _CENTER_JITTER, radius), IMAGE_SIZE - radius)
        for i, shift in ((column, shift_x), (row, shift_y))
    )
    return SceneObject(shape, color, size, cell, x, y, radius)


def _overlap(a: SceneObject, b: SceneObject) -> bool:
    reach = a.radius + b.radius - _MAX_OVERLAP
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach


def _rgb(values: NDArray[np.integer]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(values, 0, 255))
    return red, green, blue


def _unit_star() -> NDArray[np.float64]:
    """A five-pointed star stretched to fill the square from -1 to 1, so that its box is exact."""
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    stretched: NDArray[np.float64] = (points - low) / (high - low) * 2 - 1
    return stretched


_ARM = 0.34
_POLYGONS = {
    "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64),
    "triangle": np.array([(0, -1), (1, 1), (-1, 1)], dtype=np.float64),
    "star": _unit_star(),
    "cross": np.array(
        [
            (-_ARM, -1),
            (_ARM, -1),
            (_ARM, -_ARM),
            (1, -_ARM),
            (1, _ARM),
            (_ARM, _ARM),
            (_ARM, 1),
            (-_ARM, 1),
            (-_ARM, _ARM),
            (-1, _ARM),
            (-1, -_ARM),
            (-_ARM, -_ARM),
        ]
    ),
}


def _draw(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        points = _POLYGONS[shape] * radius + np.array([x, y])
        draw.polygon([(float(px), float(py)) for px, py in points], fill=fill)
