"""What encoders share whose library brings a transform for its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


def layer_index(layer: int, depth: int, model: str) -> int:
    """Which of `depth` intermediate outputs of a model an option means, counted from 0.

    Raises:
        ModelError: There is no such layer.
    """
    if not -depth <= layer < depth:
        raise ModelError(f"layer: {layer} is out of range: the {model} has {depth}, so use {-depth} to {depth - 1}.")
    return layer % depth
