"""Low-rank differences of linear maps, by peft."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.interfaces import Encoder
from adaptkit.policies.options import LoraOptions
from adaptkit.surgery import Decoder, InsertionPolicy, add_low_rank


class Lora(InsertionPolicy):
    """LoRA (arXiv 2106.09685) in the workflow only: `W x + alpha / rank · B A x`, with `B` zero at the start.

    The linear maps of the workflow's copy are wrapped by peft over the base's frozen weights; the base is
    unchanged. A placement restricts it to the chosen layers.
    """

    options: LoraOptions
    exports_as_stock = False

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Wrap the linear maps of the layers."""
        for index in layers:
            add_low_rank(decoder.layers[index], **self.options.model_dump())
        decoder.mark_layers(layers, "adapted")
