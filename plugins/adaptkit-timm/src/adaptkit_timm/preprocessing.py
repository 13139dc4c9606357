"""From a picture to `pixel_values`, by timm's own evaluation transform."""

from __future__ import annotations

import json
from typing import Any

import timm
from adaptkit_image.shapes import as_rgb, check_strip, mean_color, pad_to_square
from torch import Tensor

from adaptkit.errors import ModelError
from adaptkit.interfaces import Preprocessor
from adaptkit_timm.backbone import Layout
from adaptkit_timm.options import TimmOptions


class TimmPreprocessor(Preprocessor):
    """Makes a picture square if asked to, then applies the transform that timm evaluates the model with.

    Args:
        config: Data configuration in timm's words.
        layout: Of the features.
        options: The encoder's options.

    Raises:
        ModelError: Prefix tokens are asked for and there are none.
    """

    input_name = "pixel_values"

    def __init__(self, config: dict[str, Any], layout: Layout, options: TimmOptions) -> None:
        if options.keep_prefix and not layout.num_prefix:
            raise ModelError("keep_prefix: the model has no class or register tokens. Leave keep_prefix out.")
        self.config, self.layout = config, layout
        self.fixed_positions = layout.rows * layout.columns + (layout.num_prefix if options.keep_prefix else 0)
        self._pad = options.pad
        # A padded picture is wanted whole: its borders were put there on purpose
        used = {**config, "crop_pct": 1.0} if options.pad == "square" else config
        self._transform: Any = timm.data.create_transform(**used, is_training=False)

    def __call__(self, item: Any) -> Tensor:
        """`pixel_values` of one RGB picture, `(3, height, width)`, float32.

        Raises:
            DataError: `item` is not a loaded picture, or so elongated that resizing it would take all memory.
        """
        picture = as_rgb(item, "timm")
        if self._pad == "square":
            picture = pad_to_square(picture, mean_color(self.config["mean"]))
        elif self.config["crop_mode"] != "squash":
            check_strip(picture, int(max(self.layout.height, self.layout.width) / self.config["crop_pct"]))
        pixel_values: Tensor = self._transform(picture)
        return pixel_values

    def settings(self) -> str:
        """Everything that changes `pixel_values`, as canonical JSON."""
        return json.dumps({"pad": self._pad, **self.config}, sort_keys=True, default=str)
