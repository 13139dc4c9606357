"""Features as square maps: projectors that look at neighbours need rows and columns."""

from __future__ import annotations

from math import isqrt

from torch import Tensor

from adaptkit.errors import DataError


def map_side(positions: int, side: int | None) -> int:
    """Side of the maps that an item's features form: one map, or several of a given side.

    Args:
        positions: Feature vectors of the item.
        side: Side of one map where items may consist of several, each after the other.

    Raises:
        DataError: The features form neither a square nor several of that side.
    """
    if side is not None and positions > side * side:
        if positions % (side * side):
            raise DataError(
                f"{positions} features do not divide into maps of {side} x {side} = {side * side} features. Set "
                "the projector's `map_side` to the side of one map, and keep class tokens out of the features."
            )
        return side
    found = isqrt(positions)
    if not found or found * found != positions:
        raise DataError(
            f"{positions} features do not form a square map, and this projector needs rows and columns. Keep class "
            "tokens out of the features; where an item consists of several maps, set the projector's `map_side`; for "
            "features in a row, such as those of sound, take another projector (mlp2x_gelu, perceiver_resampler, "
            "q_former)."
        )
    return found


def to_items(features: Tensor) -> Tensor:
    """`(..., positions, width)` to `(num_items, positions, width)`."""
    return features.flatten(0, -3) if features.ndim > 2 else features.unsqueeze(0)


def to_maps(features: Tensor, side: int | None) -> Tensor:
    """`(num_items, maps * rows * rows, width)` in row-major order to `(num_items * maps, width, rows, rows)`."""
    rows = map_side(features.shape[1], side)
    return features.reshape(-1, rows, rows, features.shape[-1]).permute(0, 3, 1, 2)


def from_maps(maps: Tensor, num_items: int) -> Tensor:
    """`(num_items * maps, width, rows, rows)` to `(num_items, maps * rows * rows, width)`."""
    return maps.flatten(2).transpose(1, 2).reshape(num_items, -1, maps.shape[1])
