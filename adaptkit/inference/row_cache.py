"""Keys and values of rows that join and leave a batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

KeysValues = tuple[Tensor, Tensor]


class RowsCache(DynamicCache):  # type: ignore[misc]
    """A dynamic cache some of whose slots hold some rows only, or none.

    All slots with rows stand at one length, which is what the mask of a pass is made for.
    """

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions so far."""
        return int(super().get_seq_length(self._filled(layer_idx)))

    def get_mask_sizes(self, query_length: Any, layer_idx: int) -> tuple[int, int]:
        """As stock, of a slot that has rows."""
        sizes: tuple[int, int] = super().get_mask_sizes(query_length, self._filled(layer_idx))
        return sizes

    def _filled(self, layer_idx: int) -> int:
        """The slot itself, or where it has no rows another of its kind."""
        wanted = self.layers[layer_idx]
        if wanted.is_initialized:
            return layer_idx
        same = (i for i, layer in enumerate(self.layers) if layer.is_initialized and type(layer) is type(wanted))
        return next(same, layer_idx)

    def slot(self, index: int) -> KeysValues | None:
        """Keys and values `(rows, heads, positions, head_dim)` of a slot; None where it has no rows."""
        layer = self.layers[index]
        return (layer.keys, layer.values) if layer.is_initialized else None

    def fill(self, index: int, keys: Tensor, values: Tensor, length: int) -> None:
        """Set an empty slot, which then stands at `length` positions."""
        layer = self.layers[index]
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = length

    def window(self, index: int) -> int | None:
        """Most positions that a slot keeps; None where it keeps all."""
        layer = self.layers[index]
        return layer.sliding_window - 1 if isinstance(layer, DynamicSlidingWindowLayer) else None


@dataclass(frozen=True)
class CachedRow:
    """Keys and values of one row, without padding.

    Attributes:
        slots: `(1, heads, positions, head_dim)` each, or None where the row is not in a slot.
        windows: Most positions that a slot keeps, or None.
        length: Positions that the row has had.
    """

    slots: Sequence[KeysValues | None]
    windows: Sequence[int | None]
    length: int

    @property
    def num_bytes(self) -> int:
        """Memory that it keeps alive."""
        return sum(tensor.nbytes for slot in self.slots if slot is not None for tensor in slot)

    def can_crop(self, length: int) -> bool:
        """Whether the first `length` positions are all there."""
        filled = [window for slot, window in zip(self.slots, self.windows, strict=True) if slot is not None]
        return length == self.length or all(window is None or self.length <= window for window in filled)

    def crop(self, length: int) -> CachedRow:
        """The first `length` positions, over the same memory."""
        if length == self.length:
            return self
        slots = [slot and (slot[0][:, :, :length], slot[1][:, :, :length]) for slot in self.slots]
        return CachedRow(slots, self.windows, length)


def row_of(
    cache: RowsCache, row: int, owners: Sequence[Collection[str]], names: Sequence[str], length: int
) -> CachedRow:
    """Keys and values of a row of a batch, whose last `length` positions are not padding.

    Args:
        cache: Of the batch.
        row: Its number.
        owners: Of each slot.
        names: The workflow of each row.
        length: Positions of the row.
    """
    slots: list[KeysValues | None] = []
    windows: list[int | None] = []
    for index, owned_by in enumerate(owners):
        found = cache.slot(index)
        windows.append(cache.window(index))
        if found is None or names[row] not in owned_by:
            slots.append(None)
            continue
        place = sum(name in owned_by for name in names[:row])
        keep = length if windows[-1] is None else min(length, windows[-1])
        keys, values = (_last(tensor[place : place + 1], keep) for tensor in found)
        slots.append((keys, values))
    return CachedRow(slots, windows, length)


def _last(tensor: Tensor, length: int) -> Tensor:
    """The last positions: the tensor itself where these are all of it, else a copy, which keeps no more alive."""
    kept = tensor[:, :, tensor.shape[2] - length :]
    whole = kept.untyped_storage().nbytes() == kept.nbytes
    return kept if whole else kept.clone()


def stack_rows(config: Any, rows: Sequence[CachedRow]) -> RowsCache:
    """A batch of rows, padded on the left to the longest."""
    cache = RowsCache(config=config)
    length = max(row.length for row in rows)
    for index in range(len(rows[0].slots)):
        parts = [slot for row in rows if (slot := row.slots[index]) is not None]
        if parts:
            keys, values = (_together(side, cache.window(index), length) for side in zip(*parts, strict=True))
            cache.fill(index, keys, values, length)
    return cache


def join_rows(config: Any, caches: Sequence[RowsCache], orders: Sequence[Sequence[int]], length: int) -> RowsCache:
    """One batch of the rows of several, or of some of them.

    Args:
        config: The decoder's.
        caches: Of the batches.
        orders: For each slot, which of the rows that all of them have in it come in which order.
        length: At which the result stands: positions on the left that are too many are dropped, missing ones padded.
    """
    joined = RowsCache(config=config)
    for index, order in enumerate(orders):
        parts = [slot for cache in caches if (slot := cache.slot(index)) is not None]
        if not order:
            continue
        sides = []
        for side in zip(*parts, strict=True):
            tensor = _together(side, joined.window(index), length)
            kept = torch.tensor(order, device=tensor.device)
            sides.append(tensor if list(order) == list(range(len(tensor))) else tensor.index_select(0, kept))
        joined.fill(index, sides[0], sides[1], length)
    return joined


def _together(tensors: Sequence[Tensor], window: int | None, length: int) -> Tensor:
    """Tensors `(rows, heads, positions, head_dim)` that end at one place, as one that is as long as the slot keeps."""
    target = length if window is None else min(length, window)
    fitted = [tensor[:, :, max(tensor.shape[2] - target, 0) :] for tensor in tensors]
    fitted = [pad(t, (0, 0, target - t.shape[2], 0)) if t.shape[2] < target else t for t in fitted]
    return fitted[0] if len(fitted) == 1 else torch.cat(fitted)
