"""The Inner-Adaptor Architecture's final scheme."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch import nn

from adaptkit.interfaces import Encoder
from adaptkit.policies.options import DeltaOptions, InnerAdapterOptions
from adaptkit.surgery import Decoder, InsertionPolicy, add_low_rank, structural_copy


class InnerAdapter(InsertionPolicy):
    """IAA scheme (c), equation 2: `x_out = insertion(frozen(x_in))`.

    After each chosen layer stands a trainable decoder layer, started as a copy of that layer. The result is a stock
    decoder of `N + M` layers. With `delta` the insertion layer is the frozen layer once more, plus a low-rank
    trainable difference on each of its linear maps.
    """

    def __init__(self, options: InnerAdapterOptions) -> None:
        self.options = options
        self.exports_as_stock = options.delta is None

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Insert the copies."""
        if self.options.delta is None:
            decoder.insert_copies_after(layers)
        else:
            decoder.insert_copies_after(layers, functools.partial(_low_rank_copy, delta=self.options.delta))


def _low_rank_copy(layer: nn.Module, *, configs_of: nn.Module, delta: DeltaOptions) -> nn.Module:
    duplicate = structural_copy(layer, configs_of=configs_of)
    add_low_rank(duplicate, **delta.model_dump())
    return duplicate
