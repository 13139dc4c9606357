"""The contract of insertion policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from adaptkit.interfaces import Encoder
from adaptkit.surgery.context import AdapterContext
from adaptkit.surgery.decoder import Decoder

FeatureMode = Literal["splice", "context"]


class InsertionPolicy(ABC):
    """What is inserted into a decoder and how it is wired.

    The first five attributes are stated where the policy is registered, since recipes are checked by them before
    anything is loaded; what `build` makes gets them from there.

    Attributes:
        needs_placement: Whether the policy inserts at chosen layers, so that a placement must be given.
        inserts: Whether there are parameters to train as `insertion`.
        feature_mode: How features reach the decoder: `splice` puts them where the prompt left placeholders, one
            each; `context` keeps one placeholder per item and leaves features to `AdapterContext.media`.
        adapts_encoders: Whether `apply` changes the encoders; it is then given structural copies of them, and their
            features cannot be cached.
        supports_packing: Whether several conversations may share a row.
        uses_context: Whether inserted modules read the adapter context, which is then made for each pass.
        carried: Names of values in the context that stay beside the KV cache from one decoding step to the next.
        exports_as_stock: Whether the resulting decoder is a stock one of the same family, only deeper.
        supports_compile: Whether the workflow compiles as one graph; else `generate` never compiles it by itself.
        layers_are_closed: Whether what a layer computes leaves it as its output alone, so that its weights can be
            gathered for the time that it runs, as FSDP does.
    """

    needs_placement: bool = True
    inserts: bool = True
    feature_mode: FeatureMode = "splice"
    adapts_encoders: bool = False
    supports_packing: bool = True
    uses_context: bool = False
    carried: tuple[str, ...] = ()
    exports_as_stock: bool = True
    supports_compile: bool = True
    layers_are_closed: bool = True

    options: Any

    def __init__(self, options: Any = None) -> None:
        self.options = options

    @abstractmethod
    def apply(
        self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]
    ) -> Mapping[str, nn.Module] | None:
        """Transform a structural copy in place.

        Args:
            decoder: The copy. Its tensors are the base's: replace, extend or add modules, never write to tensors.
            encoders: The workflow's encoders by modality; structural copies where `adapts_encoders`.
            layers: Chosen layers of the base, sorted, counted from 0; all where none were chosen and no
                placement is needed.

        Returns:
            Trainable modules that belong to no layer, by name, if any; `prepare` is given them.
        """

    def prepare(  # noqa: B027  (most policies have nothing to prepare)
        self, context: AdapterContext, language_model: nn.Module, modules: nn.ModuleDict
    ) -> None:
        """Put into the context what layers need beyond what it holds; called before each pass of the decoder.

        Args:
            context: Of the pass.
            language_model: The workflow's decoder.
            modules: What `apply` returned.
        """
