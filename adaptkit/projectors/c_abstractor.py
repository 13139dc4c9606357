"""Honeybee's C-Abstractor: convolutions around a pooling to a set number of positions."""

from __future__ import annotations

from math import isqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.projectors.maps import from_maps, map_side, to_items, to_maps
from adaptkit.projectors.mlp import linear_layers
from adaptkit.projectors.options import CAbstractorOptions


class CAbstractor(nn.Module):
    """ResNet blocks, adaptive average pooling, ResNet blocks, MLP (Honeybee, arXiv 2312.06742, section 3.2).

    Blocks, and the names of their parameters, are those of RegNet's bottleneck with depthwise convolutions.
    """

    def __init__(self, options: CAbstractorOptions, feature_size: int, hidden_size: int, name: str = "") -> None:
        super().__init__()
        size, grid = options.conv_size, options.position_grid
        self.map_side = options.map_side
        self.position_embedding: nn.Parameter | None = None
        if grid is not None:
            self.position_embedding = nn.Parameter(torch.empty(1, feature_size, grid, grid))
            nn.init.trunc_normal_(self.position_embedding, std=0.02)
        self.before = _stage(options.depth, feature_size, size)
        self.pool = nn.AdaptiveAvgPool2d(isqrt(options.num_queries))
        self.after = _stage(options.depth, size, size)
        self.output = nn.Sequential(*linear_layers([size, *[hidden_size] * options.mlp_depth], nn.SiLU))

    def forward(self, features: Tensor) -> Tensor:
        """`(..., maps * rows * rows, feature_size)` to `(..., maps * num_queries, hidden_size)`.

        Raises:
            DataError: The features do not form square maps.
        """
        items = to_items(features)
        maps = to_maps(items, self.map_side)
        if self.position_embedding is not None:
            maps = maps + _resized(self.position_embedding, maps.shape[-1])
        pooled = self.after(self.pool(self.before(maps)))
        projected: Tensor = self.output(from_maps(pooled, len(items)))
        return projected.reshape(*features.shape[:-2], *projected.shape[1:])


class Bottleneck(nn.Module):
    """1x1, depthwise 3x3, squeeze and excitation, 1x1; a shortcut around them. `(batch, size, rows, columns)`."""

    def __init__(self, size_in: int, size: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(size_in, size)
        self.conv2 = ConvNorm(size, size, kernel_size=3, groups=size)
        self.se = SqueezeExcitation(size, max(1, round(size_in / 4)))
        self.conv3 = ConvNorm(size, size)
        self.downsample = ConvNorm(size_in, size) if size_in != size else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, size_in, rows, columns)` to `(batch, size, rows, columns)`."""
        inner = F.silu(self.conv2(F.silu(self.conv1(maps))))
        return F.silu(self.conv3(self.se(inner)) + self.downsample(maps))


class ConvNorm(nn.Module):
    """A convolution that keeps rows and columns, and a layer norm over the channels."""

    def __init__(self, size_in: int, size: int, *, kernel_size: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size_in, size, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
        self.bn = nn.LayerNorm(size)

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, size_in, rows, columns)` to `(batch, size, rows, columns)`."""
        return cast(Tensor, self.bn(self.conv(maps).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """A gate for each channel, made from the means of all (arXiv 1709.01507, equation 3)."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(size, inner, 1)
        self.fc2 = nn.Conv2d(inner, size, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps `(batch, size, rows, columns)`, each channel scaled."""
        means = maps.mean((2, 3), keepdim=True)
        return maps * torch.sigmoid(self.fc2(F.silu(self.fc1(means))))


def _stage(depth: int, size_in: int, size: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(size_in if number == 0 else size, size) for number in range(depth)))


def _resized(embedding: Tensor, side: int) -> Tensor:
    if embedding.shape[-1] == side:
        return embedding
    return F.interpolate(embedding.float(), (side, side), mode="bicubic", align_corners=False).to(embedding.dtype)


def pooled_positions(options: CAbstractorOptions, positions: int) -> int:
    """How many positions the pooling makes of so many."""
    return positions // map_side(positions, options.map_side) ** 2 * options.num_queries
