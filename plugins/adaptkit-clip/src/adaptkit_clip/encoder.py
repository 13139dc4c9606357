"""Patch features of CLIP and SigLIP vision models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPVisionModel, SiglipVisionModel
from transformers.utils import logging

from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Encoder
from adaptkit_clip import ClipOptions
from adaptkit_clip.checkpoint import missing, provide, resolve
from adaptkit_clip.preprocessing import (
    ClipPreprocessor,
    default_processor,
    family_of,
    first_line,
    load_preprocessor,
    load_vision_config,
)

_MODELS = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel}
_NOT_CONTENT = {"path", "revision", "dtype"}


class ClipEncoder(Encoder):
    """The hidden states of one layer, or of several, without the class token unless asked for.

    Layers beyond the last of them stay in `model`, for export, but are not run.

    Args:
        model: A `CLIPVisionModel` or `SiglipVisionModel`; it is frozen.
        options: Which features.
        preprocessor: What makes its inputs.

    Raises:
        ModelError: A chosen layer is none of the model's hidden states.
    """

    input_name = "pixel_values"
    config: Any

    def __init__(self, model: nn.Module, options: ClipOptions, preprocessor: ClipPreprocessor) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.options = options
        self.config = model.config
        self._wanted = _wanted_layers(options, self.config.num_hidden_layers)
        self.num_layers = max(self._wanted)
        self.feature_size = self.config.hidden_size * options.merge_size**2
        self.has_cls = family_of(self.config) == "clip"
        self._preprocessor = preprocessor
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Features in row-major order of patches, layer after layer where there are several.

        Args:
            inputs: `pixel_values`, `(num_items, 3, side, side)`.

        Returns:
            `(num_items, positions, feature_size)`, in the weights' dtype.

        Raises:
            DataError: The inputs have another shape.
        """
        side = self.config.image_size
        if inputs.ndim != 4 or inputs.shape[1:] != (self.config.num_channels, side, side):
            raise DataError(
                f"pixel_values must be (num_items, {self.config.num_channels}, {side}, {side}) for this "
                f"encoder, got {tuple(inputs.shape)}. Make them with the encoder's own preprocessor."
            )
        vision: Any = getattr(self.model, "vision_model", self.model)
        hidden_states = vision.embeddings(inputs)
        if self.has_cls:
            hidden_states = vision.pre_layrnorm(hidden_states)
        states = [hidden_states]
        for layer in islice(vision.encoder.layers, self.num_layers):
            states.append(layer(states[-1], None))
        return torch.cat([self._tokens_of(states[number]) for number in self._wanted], 1)

    def _tokens_of(self, hidden_states: Tensor) -> Tensor:
        if self.options.tokens == "cls":
            return hidden_states[:, :1]
        if self.has_cls and not self.options.keep_cls:
            hidden_states = hidden_states[:, 1:]
        return merge_patches(hidden_states, self.options.merge_size)

    def train(self, mode: bool = True) -> Self:
        """Training mode has a meaning only where a policy made parameters of a copy trainable."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def example_inputs(self) -> Tensor:
        """A black picture."""
        side = self.config.image_size
        return torch.zeros(1, self.config.num_channels, side, side)

    def build_preprocessor(self) -> ClipPreprocessor:
        """The preprocessing that belongs to these weights."""
        return self._preprocessor

    def fingerprint(self) -> str:
        """Hash of weights, options and preprocessing; where the checkpoint lies does not matter."""
        options = self.options.model_dump(exclude=_NOT_CONTENT)
        parts = [super().fingerprint(), json.dumps(options, sort_keys=True), self._preprocessor.settings()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def save_pretrained(self, directory: str | Path) -> dict[str, Any]:
        """Write model and processor to a folder, and return the options that build this encoder from it."""
        self.model.save_pretrained(directory)  # type: ignore[operator]
        self._preprocessor.processor.save_pretrained(directory)
        options = self.options.model_dump(exclude_defaults=True)
        options.pop("revision", None)
        return {**options, "path": str(directory)}


def merge_patches(features: Tensor, merge_size: int) -> Tensor:
    """Join squares of neighbouring patches, row by row within each square.

    Args:
        features: `(num_items, rows * rows, width)`.
        merge_size: Side of a square in patches; divides `rows`.

    Returns:
        `(num_items, (rows / merge_size)**2, width * merge_size**2)`.
    """
    if merge_size == 1:
        return features
    num_items, positions, width = features.shape
    squares = int(positions**0.5) // merge_size
    blocks = features.reshape(num_items, squares, merge_size, squares, merge_size, width)
    return blocks.transpose(2, 3).reshape(num_items, squares * squares, merge_size**2 * width)


def load_encoder(options: ClipOptions) -> ClipEncoder:
    """Load a checkpoint, whole or vision-only.

    Raises:
        ModelError: It is not there, is of another family, is incomplete, or the options do not fit it.
    """
    config = load_vision_config(options)
    _wanted_layers(options, config.num_hidden_layers)
    preprocessor = load_preprocessor(options)
    return ClipEncoder(_load_model(options, family_of(config)), options, preprocessor)


def wrap_model(module: Any, options: dict[str, Any]) -> ClipEncoder | None:
    """Adopt a vision model object, or the vision part of a whole one; None where it is neither.

    The object itself becomes the encoder's `model`, and is frozen. Preprocessing is read from the folder that
    the object was loaded from, else takes the family's defaults.
    """
    vision = getattr(module, "vision_model", module)
    config = getattr(vision, "config", None)
    if getattr(config, "model_type", None) not in ("clip_vision_model", "siglip_vision_model"):
        return None
    origin = str(getattr(module, "name_or_path", "") or "")
    known = ClipOptions.model_validate({"path": origin or "(an object)", **options})
    if origin and Path(origin).is_dir():
        return ClipEncoder(vision, known, load_preprocessor(known))
    return ClipEncoder(vision, known, ClipPreprocessor(config, default_processor(config), known))


def _load_model(options: ClipOptions, family: str) -> nn.Module:
    dtype: Any = "auto" if options.dtype == "auto" else getattr(torch, options.dtype)
    try:
        with _quiet_about_the_text_half():
            model, report = _MODELS[family].from_pretrained(
                resolve(options.path),
                revision=options.revision,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = missing(options.path, options.revision) or f"{first_line(error)}. {provide()}"
        raise ModelError(f"cannot load the encoder {options.path}: {reason}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelError(f"{options.path} lacks {len(absent)} of the vision model's tensors, {absent[0]} among them.")
    return model  # type: ignore[no-any-return]


@contextmanager
def _quiet_about_the_text_half() -> Iterator[None]:
    """Without transformers' table of unused tensors; absent ones are checked for here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _wanted_layers(options: ClipOptions, depth: int) -> list[int]:
    """The chosen hidden states as indices from 0 into the `depth + 1` that there are."""
    wanted = []
    for key, given in options.layers().items():
        layer = given if given >= 0 else depth + 1 + given
        if not 0 <= layer <= depth:
            raise ModelError(
                f"{key}: {given} is out of range: the model has {depth} layers, so use {-depth - 1} to {depth}."
            )
        wanted.append(layer)
    return wanted
