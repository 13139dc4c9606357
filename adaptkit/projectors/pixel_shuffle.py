"""Token merging: squares of neighbouring features become one, and an MLP maps it to the decoder's width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.projectors.maps import from_maps, map_side, to_items, to_maps
from adaptkit.projectors.mlp import linear_layers
from adaptkit.projectors.options import PixelShuffleOptions


class PixelShuffleProjector(nn.Module):
    """Space to depth, layer norm, MLP, as in InternVL 1.5 (arXiv 2404.16821, section 3.1) and Idefics3."""

    def __init__(self, options: PixelShuffleOptions, feature_size: int, hidden_size: int, name: str = "") -> None:
        super().__init__()
        self.options = options
        merged = feature_size * options.factor**2
        layers = linear_layers([merged, *[hidden_size] * options.mlp_depth], nn.GELU, bias=options.bias)
        self.mlp = nn.Sequential(*([nn.LayerNorm(merged)] if options.norm else []), *layers)

    def forward(self, features: Tensor) -> Tensor:
        """`(..., positions, feature_size)` to `(..., positions / factor**2, hidden_size)`, both in row-major order.

        Raises:
            DataError: The features do not form square maps, or `factor` does not divide their side.
        """
        items = to_items(features)
        num_positions(self.options, items.shape[1])
        maps = F.pixel_unshuffle(to_maps(items, self.options.map_side), self.options.factor)
        projected: Tensor = self.mlp(from_maps(maps, len(items)))
        return projected.reshape(*features.shape[:-2], *projected.shape[1:])


def num_positions(options: PixelShuffleOptions, positions: int) -> int:
    """How many positions are left of so many.

    Raises:
        DataError: They do not form square maps, or `factor` does not divide their side.
    """
    rows, factor = map_side(positions, options.map_side), options.factor
    if rows % factor:
        divisors = [str(number) for number in range(1, rows + 1) if rows % number == 0]
        raise DataError(
            f"features in maps of {rows} x {rows} cannot be merged in squares of {factor} x {factor}: set the "
            f"projector's `factor` to a divisor of {rows} ({', '.join(divisors)})."
        )
    return positions // factor**2
