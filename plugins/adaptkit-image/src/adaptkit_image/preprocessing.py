"""What encoders share whose library brings a transform for its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Preprocessor
from adaptkit_image.shapes import as_rgb, check_strip, mean_color, pad_to_square


class TransformPreprocessor(Preprocessor):
    """Makes a picture square if asked to, then applies the transform that a library evaluates a model with.

    Args:
        encoder: Name of the encoder, for messages.
        config: Settings of the transform, in the words of the library.
        transform: The transform.
        pad: `square` pads with the mean colour first.
        resized_side: Length to which the transform resizes the shorter edge of a picture, where it does.
    """

    input_name = "pixel_values"

    def __init__(
        self, encoder: str, config: dict[str, Any], transform: Callable[[Any], Any], pad: str, resized_side: int | None
    ) -> None:
        self.config = config
        self._encoder, self._transform, self._pad, self._resized_side = encoder, transform, pad, resized_side

    def __call__(self, item: Any) -> Tensor:
        """`pixel_values` of one RGB picture, `(3, height, width)`, float32.

        Raises:
            DataError: `item` is not a loaded picture, or so elongated that resizing it would take all memory.
        """
        picture = as_rgb(item, self._encoder)
        if self._pad == "square":
            picture = pad_to_square(picture, mean_color(self.config["mean"]))
        elif self._resized_side is not None:
            check_strip(picture, self._resized_side)
        pixel_values: Tensor = self._transform(picture)
        return pixel_values

    def settings(self) -> str:
        """Everything that changes `pixel_values`, as canonical JSON."""
        return json.dumps({"pad": self._pad, **self.config}, sort_keys=True, default=str)


def stack_pixel_values(inputs: Tensor | list[Tensor], height: int, width: int) -> Tensor:
    """One batch `(num_items, 3, height, width)` of what an encoder was given.

    Raises:
        DataError: It has another shape.
    """
    pixel_values = torch.stack(inputs) if isinstance(inputs, list) else inputs
    if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, height, width):
        raise DataError(
            f"pixel_values must be (num_items, 3, {height}, {width}) for this encoder, got "
            f"{tuple(pixel_values.shape)}. Make them with the encoder's own preprocessor."
        )
    return pixel_values


@dataclass(frozen=True)
class Layout:
    """What a model gives for one picture.

    Attributes:
        height: Of its pictures.
        width: Of its pictures.
        layer: The chosen intermediate output, from 0.
        rows: Of its grid of features.
        columns: Of its grid of features.
        feature_size: Width of a feature.
        num_prefix: How many class and register tokens come with it.
    """

    height: int
    width: int
    layer: int
    rows: int
    columns: int
    feature_size: int
    num_prefix: int


def probe_layout(
    model: nn.Module, size: tuple[int, int], layer: int, run: Callable[[Tensor], tuple[list[Tensor], int]]
) -> Layout:
    """What a model gives, found by running it on a black picture.

    Args:
        size: Height and width of its pictures.
        layer: Index into its intermediate outputs.
        run: From `pixel_values` to the intermediate outputs, `(1, feature_size, rows, columns)` each, and the number of
            class and register tokens beside each.

    Raises:
        ModelError: It has no such layer.
    """
    parameter = next(model.parameters())
    with torch.no_grad():
        states, num_prefix = run(torch.zeros(1, 3, *size, dtype=parameter.dtype, device=parameter.device))
    depth = len(states)
    if not -depth <= layer < depth:
        raise ModelError(f"layer: {layer} is out of range: the model has {depth}, so use {-depth} to {depth - 1}.")
    feature_size, rows, columns = states[layer].shape[1:]
    return Layout(*size, layer % depth, rows, columns, feature_size, num_prefix)
