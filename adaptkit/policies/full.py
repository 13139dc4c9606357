"""The unfrozen decoder."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.errors import ModelError
from adaptkit.interfaces import Encoder
from adaptkit.surgery import Decoder, InsertionPolicy, own_parameters, quantization_of


class Full(InsertionPolicy):
    """The whole decoder is trained, on a float32 copy of its own (LLaVA, arXiv 2310.03744, stage 2).

    It costs a second decoder in memory. The base stays as it is, so that what the copy has forgotten can be measured.
    """

    exports_as_stock = True

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Give the decoder parameters of its own.

        Raises:
            ModelError: The base is quantised.
        """
        quantization = quantization_of(decoder.model)
        if quantization is not None:
            raise ModelError(
                f"full: the base is quantised ({quantization}), and this policy trains a copy of all of it. Load it "
                "without quantization, or take a policy that leaves it frozen (lora, inner_adapter, mma)."
            )
        own_parameters(decoder.model)
        decoder.mark_layers(list(range(len(decoder.layers))), "unfrozen")
