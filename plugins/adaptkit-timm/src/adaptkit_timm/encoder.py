"""Features of timm backbones, before they are pooled."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from adaptkit_image.preprocessing import stack_pixel_values
from timm.models import save_for_hf
from torch import Tensor, nn

from adaptkit.files.hashing import hash_tensors
from adaptkit.interfaces import PretrainedEncoder
from adaptkit_timm.backbone import build_backbone, data_config, fill, intermediate, probe, probe_name
from adaptkit_timm.checkpoint import find, source_name
from adaptkit_timm.options import TimmOptions
from adaptkit_timm.preprocessing import TimmPreprocessor

_OBJECT = "(an object)"


class TimmEncoder(PretrainedEncoder[TimmPreprocessor]):
    """One intermediate output of a backbone, without class and register tokens unless asked for."""

    not_content = frozenset({"path", "model", "pretrained", "image_size", "dtype"})
    options: TimmOptions

    def __init__(self, model: nn.Module, options: TimmOptions, preprocessor: TimmPreprocessor) -> None:
        super().__init__(model, options, preprocessor)
        self.layout = preprocessor.layout
        self.feature_size = self.layout.feature_size
        self.num_layers = self.layout.layer + 1

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features in reading order, prefix tokens first where they are kept.

        Args:
            inputs: `pixel_values`, `(num_items, 3, height, width)`, or a list of `(3, height, width)`.

        Returns:
            `(num_items, positions, feature_size)`, in the weights' dtype.

        Raises:
            DataError: The inputs have another shape.
        """
        pixel_values = stack_pixel_values(inputs, self.layout.height, self.layout.width)
        return intermediate(self.model, pixel_values, self.layout, self.options.keep_prefix)

    def example_inputs(self) -> Tensor:
        """A grey picture."""
        return torch.zeros(1, 3, self.layout.height, self.layout.width)

    def weights_fingerprint(self) -> str:
        """Hash of the weights without those of a classifier."""
        given = dict(getattr(self.model, "pretrained_cfg", {})).get("classifier") or ()
        heads = tuple(f"model.{name}." for name in ([given] if isinstance(given, str) else given))
        tensors = chain(self.named_parameters(), self.named_buffers())
        return hash_tensors((name, tensor) for name, tensor in tensors if not name.startswith(heads))

    def save_pretrained(self, directory: str | Path) -> dict[str, Any]:
        """Write backbone and configuration as timm does, and return the options that build this encoder from them."""
        save_for_hf(self.model, str(directory), safe_serialization=True, data_config=self._preprocessor.config)
        options = self.options.model_dump(exclude_defaults=True, exclude={"model", "pretrained", "image_size"})
        return {**options, "path": str(directory)}


def load_encoder(options: TimmOptions) -> TimmEncoder:
    """Load a backbone.

    Raises:
        ModelError: It is not there, is incomplete, or the options do not fit it.
    """
    checkpoint = find(options)
    preprocessor = load_preprocessor(options)
    model = build_backbone(checkpoint.name, options.image_size)
    fill(model, checkpoint.weights)
    return TimmEncoder(model.to(getattr(torch, options.dtype)), options, preprocessor)


def load_preprocessor(options: TimmOptions) -> TimmPreprocessor:
    """The preprocessing of a backbone, from its configuration alone."""
    config, layout = probe_name(source_name(options), options.image_size, options.layer)
    return TimmPreprocessor(config, layout, options)


def wrap_model(module: Any, options: dict[str, Any]) -> TimmEncoder | None:
    """Adopt a model of timm; None for other objects. The object itself becomes the encoder's `model`, and is frozen."""
    ours = isinstance(getattr(module, "pretrained_cfg", None), dict) and hasattr(module, "forward_intermediates")
    if not isinstance(module, nn.Module) or not ours:
        return None
    known = TimmOptions.model_validate({"path": _OBJECT, **options})
    config = data_config(module, known.image_size)
    layout = probe(module.eval(), config, known.layer)
    return TimmEncoder(module, known, TimmPreprocessor(config, layout, known))
