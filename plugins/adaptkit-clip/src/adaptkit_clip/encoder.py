"""Patch features of CLIP, SigLIP and DINOv2 vision models."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, ModelError
from adaptkit.files.checkpoints import load_encoder_model
from adaptkit.interfaces import PretrainedEncoder
from adaptkit_clip.checkpoint import ADVICE, missing, resolve
from adaptkit_clip.families import FAMILIES, default_processor, family_of, num_prefix_tokens
from adaptkit_clip.options import ClipOptions
from adaptkit_clip.preprocessing import ClipPreprocessor, load_preprocessor, load_vision_config

_LATER = {"keep_registers", "tiles", "max_num_patches"}


class ClipEncoder(PretrainedEncoder[ClipPreprocessor]):
    """The hidden states of one layer, or of several, without class and register tokens unless asked for.

    Layers beyond the last of them stay in `model`, for export, but are not run.

    Args:
        model: A vision model of one of `adaptkit_clip.families`; it is frozen.

    Raises:
        ModelError: A chosen layer is none of the model's hidden states.
    """

    not_content = frozenset({"path", "revision", "dtype"})
    options: ClipOptions
    config: Any

    def __init__(self, model: nn.Module, options: ClipOptions, preprocessor: ClipPreprocessor) -> None:
        super().__init__(model, options, preprocessor)
        self.config = model.config
        self._wanted = _wanted_layers(options, self.config.num_hidden_layers)
        self.num_layers = max(self._wanted)
        self.feature_size = self.config.hidden_size * options.merge_size**2
        self._family = family_of(self.config)
        self.has_cls = self._family.has_cls

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features in row-major order of patches, layer after layer where there are several, tile after tile.

        Args:
            inputs: `pixel_values`, `(num_items, 3, side, side)`; with tiles, and where the model takes any shape, as
                the preprocessor makes them, `(num_items, tiles, 3, height, width)`, or a list of one tensor each.

        Returns:
            `(num_items, positions, feature_size)`, in the weights' dtype; a list of `(positions, feature_size)` for a
            list.

        Raises:
            DataError: The inputs have another shape.
        """
        if self._preprocessor.fixed_positions is not None:
            pixel_values = torch.stack(inputs) if isinstance(inputs, list) else inputs
            features = self._encode(self._checked(pixel_values, "num_items"))
            return list(features) if isinstance(inputs, list) else features
        items = [self._checked(item, "tiles") for item in inputs]
        features_of = self._encode_together if len({item.shape[1:] for item in items}) == 1 else self._encode_apart
        features_per_item = features_of(items)
        return torch.stack(features_per_item) if isinstance(inputs, Tensor) else features_per_item

    def _encode_together(self, items: list[Tensor]) -> list[Tensor]:
        features = torch.split(self._encode(torch.cat(items)), [len(item) for item in items])
        return [part.flatten(0, 1) for part in features]

    def _encode_apart(self, items: list[Tensor]) -> list[Tensor]:
        return [self._encode(item).flatten(0, 1) for item in items]

    def _encode(self, pixel_values: Tensor) -> Tensor:
        states = [self._family.embed(self._vision(), pixel_values)]
        for layer in islice(self._layers(), self.num_layers):
            states.append(self._family.run_layer(layer, states[-1]))
        return torch.cat([self._tokens_of(states[number]) for number in self._wanted], 1)

    def _vision(self) -> Any:
        return getattr(self.model, "vision_model", self.model)

    def _layers(self) -> Any:
        encoder = self._vision().encoder
        return encoder.layer if hasattr(encoder, "layer") else encoder.layers

    def _checked(self, pixel_values: Tensor, first: str) -> Tensor:
        side, channels = self._preprocessor.side, self.config.num_channels
        shape = pixel_values.shape
        if side:
            fits, expected = shape[1:] == (channels, side, side), f"{channels}, {side}, {side}"
        else:
            whole_patches = not any(length % self.config.patch_size for length in shape[-2:])
            fits, expected = shape[1:2] == (channels,) and whole_patches, f"{channels}, height, width"
        if len(shape) != 4 or not fits:
            raise DataError(
                f"pixel_values must be ({first}, {expected}) for this encoder, got {tuple(shape)}. Make them with the "
                "encoder's own preprocessor."
            )
        return pixel_values

    def _tokens_of(self, hidden_states: Tensor) -> Tensor:
        if self.options.tokens == "cls":
            return hidden_states[:, :1]
        num_prefix = num_prefix_tokens(self.config)
        patches = merge_patches(hidden_states[:, num_prefix:], self.options.merge_size)
        kept = [hidden_states[:, :1]] if self.options.keep_cls else []
        kept += [hidden_states[:, 1:num_prefix]] if self.options.keep_registers else []
        return torch.cat([*kept, patches], 1) if kept else patches

    def example_inputs(self) -> Tensor:
        """A grey picture, in one square or patch where there may be several."""
        channels, side = self.config.num_channels, self._preprocessor.side or self.config.patch_size
        shape = (1, channels, side, side)
        return torch.zeros(shape if self._preprocessor.fixed_positions is not None else (1, *shape))

    def content(self) -> dict[str, Any]:
        # Without later options that say nothing, so that checkpoints made before there were such options still match
        return {key: value for key, value in super().content().items() if value or key not in _LATER}

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
    model = load_encoder_model(
        family_of(config).model_class,
        resolve(options.path),
        options.path,
        "vision model",
        advice=missing(options) or ADVICE,
        revision=options.revision,
        dtype=options.dtype,
    )
    return ClipEncoder(model, options, preprocessor)


def wrap_model(module: Any, options: dict[str, Any]) -> ClipEncoder | None:
    """Adopt a vision model object, or the vision part of a whole one; None where it is neither.

    The object itself becomes the encoder's `model`, and is frozen. Preprocessing is read from the folder that
    the object was loaded from, else takes the family's defaults.
    """
    vision = getattr(module, "vision_model", module)
    config = getattr(vision, "config", None)
    known_types = [family.model_types[-1] for family in FAMILIES.values()]
    if getattr(config, "model_type", None) not in known_types or not hasattr(vision, "encoder"):
        return None
    origin = str(getattr(module, "name_or_path", "") or "")
    known = ClipOptions.model_validate({"path": origin or "(an object)", **options})
    if origin and Path(origin).is_dir():
        return ClipEncoder(vision, known, load_preprocessor(known))
    return ClipEncoder(vision, known, ClipPreprocessor(config, default_processor(config), known))


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
