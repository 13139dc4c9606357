"""Token merging: squares of neighbouring features become one, and an MLP maps it to the decoder's width."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.projectors.maps import from_maps, map_side, to_items, to_maps
from adaptkit.projectors.options import PixelShuffleOptions


class PixelShuffleProjector(nn.Module):
    """Space to depth, layer norm, MLP, as in InternVL 1.5 (arXiv 2404.16821, section 3.1) and Idefics3.

    Args:
        feature_size: Width of the features.
        hidden_size: Width of the decoder.
        factor: Side, in features, of the squares that become one.
        mlp_depth: Linear maps, GELU between them.
        norm: Whether a layer norm precedes them.
        bias: Whether they have biases.
        map_side: As in `adaptkit.projectors.maps`.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        *,
        factor: int,
        mlp_depth: int,
        norm: bool,
        bias: bool,
        map_side: int | None,
    ) -> None:
        super().__init__()
        self.factor, self.map_side = factor, map_side
        merged = feature_size * factor**2
        layers: list[nn.Module] = [nn.LayerNorm(merged)] if norm else []
        for number, (size_in, size_out) in enumerate(pairwise([merged, *[hidden_size] * mlp_depth])):
            layers += [nn.GELU()] if number else []
            layers.append(nn.Linear(size_in, size_out, bias=bias))
        self.mlp = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """`(..., positions, feature_size)` to `(..., positions / factor**2, hidden_size)`, both in row-major order.

        Raises:
            DataError: The features form no square maps, or `factor` does not divide their side.
        """
        items = to_items(features)
        merged_positions(items.shape[1], self.factor, self.map_side)
        maps = F.pixel_unshuffle(to_maps(items, self.map_side), self.factor)
        projected: Tensor = self.mlp(from_maps(maps, len(items)))
        return projected.reshape(*features.shape[:-2], *projected.shape[1:])


def merged_positions(positions: int, factor: int, side: int | None) -> int:
    """How many positions are left of so many.

    Raises:
        DataError: They form no square maps, or `factor` does not divide their side.
    """
    rows = map_side(positions, side)
    if rows % factor:
        divisors = [str(number) for number in range(1, rows + 1) if rows % number == 0]
        raise DataError(
            f"features in maps of {rows} x {rows} cannot be merged in squares of {factor} x {factor}: set the "
            f"projector's `factor` to a divisor of {rows} ({', '.join(divisors)})."
        )
    return positions // factor**2


def build_pixel_shuffle(options: PixelShuffleOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """Squares of features merged, then an MLP, as in InternVL and Idefics3."""
    return PixelShuffleProjector(feature_size, hidden_size, **options.model_dump())


def num_positions(options: PixelShuffleOptions, positions: int) -> int:
    """As `merged_positions`, by the options."""
    return merged_positions(positions, options.factor, options.map_side)
