"""The empty policy."""

from __future__ import annotations

from collections.abc import Mapping

from adaptkit.interfaces import Encoder
from adaptkit.surgery import Decoder, InsertionPolicy


class ProjectorOnly(InsertionPolicy):
    """Nothing is inserted; only the projector learns (LLaVA stage 1, MiniGPT-4)."""

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Leave the decoder as it is."""
