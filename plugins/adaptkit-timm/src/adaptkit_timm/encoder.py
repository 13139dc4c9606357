"""Features of timm backbones, before they are pooled."""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from adaptkit.errors import DataError
from adaptkit.files.hashing import hash_tensors
from adaptkit.interfaces import Encoder
from adaptkit_timm.backbone import build_backbone, data_config, fill, intermediate, probe, probe_name
from adaptkit_timm.checkpoint import find, source_name
from adaptkit_timm.options import TimmOptions
from adaptkit_timm.preprocessing import TimmPreprocessor

_NOT_CONTENT = {"path", "model", "pretrained", "image_size", "dtype"}
_OBJECT = "(an object)"


class TimmEncoder(Encoder):
    """One intermediate output of a backbone, without class and register tokens unless asked for.

    Args:
        model: The backbone; it is frozen.
        options: Which features.
        preprocessor: What makes its inputs.
    """

    input_name = "pixel_values"

    def __init__(self, model: nn.Module, options: TimmOptions, preprocessor: TimmPreprocessor) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.options = options
        self.layout = preprocessor.layout
        self.feature_size = self.layout.feature_size
        self.num_layers = self.layout.layer + 1
        self._preprocessor = preprocessor
        self.eval()

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features in reading order, prefix tokens first where they are kept.

        Args:
            inputs: `pixel_values`, `(num_items, 3, height, width)`, or a list of `(3, height, width)`.

        Returns:
            `(num_items, positions, feature_size)`, in the weights' dtype.

        Raises:
            DataError: The inputs have another shape.
        """
        pixel_values = torch.stack(inputs) if isinstance(inputs, list) else inputs
        height, width = self.layout.height, self.layout.width
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, height, width):
            raise DataError(
                f"pixel_values must be (num_items, 3, {height}, {width}) for this encoder, got "
                f"{tuple(pixel_values.shape)}. Make them with the encoder's own preprocessor."
            )
        return intermediate(self.model, pixel_values, self.layout, self.options.keep_prefix)

    def train(self, mode: bool = True) -> Self:
        """Training mode has a meaning only where a policy made parameters of a copy trainable."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def example_inputs(self) -> Tensor:
        """A grey picture."""
        return torch.zeros(1, 3, self.layout.height, self.layout.width)

    def build_preprocessor(self) -> TimmPreprocessor:
        """The preprocessing that belongs to these weights."""
        return self._preprocessor

    def fingerprint(self) -> str:
        """Hash of weights, options and preprocessing; a classifier and where the checkpoint lies do not matter."""
        given = dict(getattr(self.model, "pretrained_cfg", {})).get("classifier") or ()
        heads = tuple(f"model.{name}." for name in ([given] if isinstance(given, str) else given))
        tensors = chain(self.named_parameters(), self.named_buffers())
        weights = hash_tensors((name, tensor) for name, tensor in tensors if not name.startswith(heads))
        options = self.options.model_dump(exclude=_NOT_CONTENT)
        parts = [weights, json.dumps(options, sort_keys=True), self._preprocessor.settings()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

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
    """Adopt a model of timm; None where it is none. The object itself becomes the encoder's `model`, and is frozen."""
    ours = isinstance(getattr(module, "pretrained_cfg", None), dict) and hasattr(module, "forward_intermediates")
    if not isinstance(module, nn.Module) or not ours:
        return None
    known = TimmOptions.model_validate({"path": _OBJECT, **options})
    config = data_config(module, known.image_size)
    layout = probe(module.eval(), config, known.layer)
    return TimmEncoder(module, known, TimmPreprocessor(config, layout, known))
