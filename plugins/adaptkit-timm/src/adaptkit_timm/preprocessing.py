"""From a picture to `pixel_values`, by timm's own evaluation transform."""

from __future__ import annotations

from typing import Any

import timm
from adaptkit_image.preprocessing import Layout, TransformPreprocessor

from adaptkit.errors import ModelError
from adaptkit_timm.options import TimmOptions


class TimmPreprocessor(TransformPreprocessor):
    """Makes a picture square if asked to, then applies the transform that timm evaluates the model with.

    Args:
        config: Data configuration in timm's words.

    Raises:
        ModelError: Prefix tokens are asked for and there are none.
    """

    def __init__(self, config: dict[str, Any], layout: Layout, options: TimmOptions) -> None:
        if options.keep_prefix and not layout.num_prefix:
            raise ModelError("keep_prefix: the model has no class or register tokens. Remove keep_prefix.")
        self.layout = layout
        self.fixed_positions = layout.rows * layout.columns + (layout.num_prefix if options.keep_prefix else 0)
        # A padded picture is wanted whole: its borders were put there on purpose
        used = {**config, "crop_pct": 1.0} if options.pad == "square" else config
        side = int(max(layout.height, layout.width) / config["crop_pct"])
        transform = timm.data.create_transform(**used, is_training=False)
        super().__init__("timm", config, transform, options.pad, None if config["crop_mode"] == "squash" else side)
