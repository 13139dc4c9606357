"""What each patch of an image shows, as targets for the image encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adaptkit.world.scenes import CELLS, COLORS, IMAGE_SIZE, SHAPES, Scene

_MARGIN = 1.0
_MIRRORED_CELLS = [2, 1, 0, 5, 4, 3, 8, 7, 6]


@dataclass
class Labels:
    """What the patches of images show; `(num, patches)` but for `pairs` and `location`.

    Attributes:
        covered: Whether an object covers the patch.
        shape: Index into `SHAPES`, of the object that covers it.
        color: Index into `COLORS`.
        cell: Index into `CELLS`.
        location: That object's centre and radius, `(num, patches, 3)`, in units of 16 px from the centre.
        pairs: Which (colour, shape) pairs the image shows, `(num, colors * shapes)`.
    """

    covered: Tensor
    shape: Tensor
    color: Tensor
    cell: Tensor
    location: Tensor
    pairs: Tensor

    def take(self, index: Tensor) -> Labels:
        """The labels of some images."""
        return Labels(**{name: value[index] for name, value in vars(self).items()})


def label_patches(items: list[Scene], patch_size: int) -> Labels:
    """What each patch shows: the nearest object that covers its centre, give or take a pixel."""
    side = IMAGE_SIZE // patch_size
    centers = (np.arange(side) + 0.5) * patch_size
    patch_y, patch_x = (grid.reshape(-1) for grid in np.meshgrid(centers, centers, indexing="ij"))
    integers = np.zeros((4, len(items), side * side), dtype=np.int64)
    location = np.zeros((len(items), side * side, 3), dtype=np.float32)
    pairs = np.zeros((len(items), len(COLORS) * len(SHAPES)), dtype=np.float32)
    for row, scene in enumerate(items):
        distance = np.stack([np.maximum(abs(patch_x - o.x), abs(patch_y - o.y)) - o.radius for o in scene.objects])
        nearest = distance.argmin(axis=0)
        integers[0, row] = distance.min(axis=0) < _MARGIN
        names = [(SHAPES.index(o.shape), COLORS.index(o.color), CELLS.index(o.cell)) for o in scene.objects]
        integers[1:, row] = np.array(names)[nearest].T
        location[row] = np.array([(o.x - 32, o.y - 32, o.radius - 10.5) for o in scene.objects])[nearest] / 16
        for shape, color, _ in names:
            pairs[row, color * len(SHAPES) + shape] = 1
    covered, shape_ids, color_ids, cell_ids = torch.from_numpy(integers)
    return Labels(covered.bool(), shape_ids, color_ids, cell_ids, torch.from_numpy(location), torch.from_numpy(pairs))


def mirror_some(pixel_values: Tensor, labels: Labels, rng: np.random.Generator) -> tuple[Tensor, Labels]:
    """Mirrors half of the images, left to right, and what their labels say."""
    mirrored = torch.from_numpy(rng.random(len(pixel_values)) < 0.5)
    side = round(labels.covered.shape[1] ** 0.5)

    def mirror(values: Tensor) -> Tensor:
        grid = values.reshape(len(values), side, side, -1)
        turned = torch.where(mirrored[:, None, None, None], grid.flip(2), grid)
        return turned.reshape(values.shape)

    pixel_values = torch.where(mirrored[:, None, None, None], pixel_values.flip(3), pixel_values)
    cells = torch.where(mirrored[:, None], torch.tensor(_MIRRORED_CELLS)[labels.cell], labels.cell)
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None]
    location = labels.location * torch.cat([sign, torch.ones_like(sign), torch.ones_like(sign)], dim=2)
    return pixel_values, Labels(
        covered=mirror(labels.covered),
        shape=mirror(labels.shape),
        color=mirror(labels.color),
        cell=mirror(cells),
        location=mirror(location),
        pairs=labels.pairs,
    )
