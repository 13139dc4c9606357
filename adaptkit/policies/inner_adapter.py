"""The Inner-Adaptor Architecture's final scheme."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.interfaces import Encoder
from adaptkit.surgery import Decoder, InsertionPolicy


class InnerAdapter(InsertionPolicy):
    """IAA scheme (c), equation 2: `x_out = insertion(frozen(x_in))`.

    After each chosen layer stands a trainable decoder layer, started as a copy of that layer. The result is a stock
    decoder of `N + M` layers.
    """

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Insert the copies."""
        decoder.insert_copies_after(layers)
