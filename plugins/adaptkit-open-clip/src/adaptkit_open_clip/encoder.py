"""Patch features of open_clip's vision towers, before they are pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from adaptkit_image.preprocessing import stack_pixel_values
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.interfaces import PretrainedEncoder
from adaptkit_open_clip.checkpoint import locate
from adaptkit_open_clip.options import OpenClipOptions
from adaptkit_open_clip.preprocessing import OpenClipPreprocessor
from adaptkit_open_clip.tower import (
    build_tower,
    fill,
    intermediate,
    model_config,
    preprocess_config,
    probe,
    probe_config,
    save_tower,
    sides,
)

_OBJECT = "(an object)"


class OpenClipEncoder(PretrainedEncoder[OpenClipPreprocessor]):
    """One intermediate output of a vision tower, without the class token unless asked for.

    Args:
        model_cfg: Of open_clip, where it is known: a saved encoder needs it.
    """

    not_content = frozenset({"path", "model", "dtype"})
    options: OpenClipOptions

    def __init__(
        self,
        visual: nn.Module,
        options: OpenClipOptions,
        preprocessor: OpenClipPreprocessor,
        model_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(visual, options, preprocessor)
        self.layout = preprocessor.layout
        self.feature_size = self.layout.feature_size
        self.num_layers = self.layout.layer + 1
        self._model_cfg = model_cfg

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features in reading order, the class token first where it is kept.

        Args:
            inputs: `pixel_values`, `(num_items, 3, height, width)`, or a list of `(3, height, width)`.

        Returns:
            `(num_items, positions, feature_size)`, in the weights' dtype.

        Raises:
            DataError: The inputs have another shape.
        """
        pixel_values = stack_pixel_values(inputs, *sides(self.model))
        features, cls = intermediate(self.model, pixel_values, self.layout.layer)
        return torch.cat([cls, features], 1) if self.options.keep_cls and cls is not None else features

    def example_inputs(self) -> Tensor:
        """A grey picture."""
        return torch.zeros(1, 3, *sides(self.model))

    def save_pretrained(self, directory: str | Path) -> dict[str, Any]:
        """Write tower and configuration to a folder, and return the options that build this encoder from it.

        Raises:
            ModelError: The tower came as an object, and its architecture was not named.
        """
        if self._model_cfg is None:
            raise ModelError(
                "a tower given as an object does not tell its architecture: name it beside it, "
                '"encoder_options": {"model": "ViT-B-32"}, so that it can be saved.'
            )
        save_tower(self.model, Path(directory), self._model_cfg, self._preprocessor.config)
        options = self.options.model_dump(exclude_defaults=True, exclude={"model", "preprocess"})
        return {**options, "path": str(directory)}


def load_encoder(options: OpenClipOptions) -> OpenClipEncoder:
    """Load the vision tower of a checkpoint, whole or vision-only.

    Raises:
        ModelError: It is not there, is incomplete, or the options do not fit it.
    """
    checkpoint = locate(options.path, options.model)
    config = model_config(checkpoint, options.model)
    preprocessor = load_preprocessor(options)
    visual: Any = build_tower(config)
    fill(visual, checkpoint)
    visual.preprocess_cfg = preprocessor.config  # as open_clip's own loading does
    return OpenClipEncoder(visual.to(getattr(torch, options.dtype)), options, preprocessor, config)


def load_preprocessor(options: OpenClipOptions) -> OpenClipPreprocessor:
    """The preprocessing of a checkpoint, from its configuration alone."""
    checkpoint = locate(options.path, options.model)
    config = model_config(checkpoint, options.model)
    layout = probe_config(config, options.layer)
    return OpenClipPreprocessor(preprocess_config(config, checkpoint, options), layout, options)


def wrap_model(module: Any, options: dict[str, Any]) -> OpenClipEncoder | None:
    """Adopt a model of open_clip, or its vision tower alone; None where it is neither.

    The object itself becomes the encoder's `model`, and is frozen.
    """
    visual = getattr(module, "visual", module)
    if not type(visual).__module__.startswith("open_clip.") or not hasattr(visual, "image_size"):
        return None
    known = OpenClipOptions.model_validate({"path": _OBJECT, **options})
    config = None if known.model is None else model_config(None, known.model)
    prepared = dict(getattr(visual, "preprocess_cfg", None) or {})
    shown = preprocess_config({"vision_cfg": {"image_size": visual.image_size}}, None, known)
    layout = probe(visual.eval(), known.layer)
    merged = {**shown, **prepared, **known.preprocess.given(), "size": visual.image_size}
    return OpenClipEncoder(visual, known, OpenClipPreprocessor(merged, layout, known), config)
