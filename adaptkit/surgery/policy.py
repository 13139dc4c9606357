"""The contract of insertion policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from adaptkit.interfaces import Encoder
from adaptkit.surgery.decoder import Decoder


class InsertionPolicy(ABC):
    """What is inserted into a decoder and how it is wired.

    Attributes:
        needs_placement: Whether the policy inserts at chosen layers, so that a placement must be given.
        exports_as_stock: Whether the resulting decoder is a stock one of the same family, only deeper.
    """

    needs_placement: bool = True
    exports_as_stock: bool = True

    @abstractmethod
    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Transform a structural copy in place.

        Args:
            decoder: The copy. Its tensors are the base's: replace or add modules, never write to tensors.
            encoders: The workflow's encoders by modality.
            layers: Chosen layers of the base, sorted, counted from 0; empty where no placement is needed.
        """
