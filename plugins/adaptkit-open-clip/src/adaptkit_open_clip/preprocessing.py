"""From a picture to `pixel_values`, by open_clip's own transform."""

from __future__ import annotations

import json
from typing import Any

from adaptkit_image.shapes import as_rgb, check_strip, mean_color, pad_to_square
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor

from adaptkit.interfaces import Preprocessor
from adaptkit_open_clip.options import OpenClipOptions
from adaptkit_open_clip.tower import Layout


class OpenClipPreprocessor(Preprocessor):
    """Makes a picture square if asked to, then applies the transform that open_clip evaluates the model with.

    Args:
        config: `preprocess_cfg` in open_clip's words.
        layout: Of the features.
        options: The encoder's options.
    """

    input_name = "pixel_values"

    def __init__(self, config: dict[str, Any], layout: Layout, options: OpenClipOptions) -> None:
        self.config, self.layout = config, layout
        self.fixed_positions = layout.rows * layout.columns + int(options.keep_cls)
        self._pad = options.pad
        self._transform: Any = image_transform_v2(PreprocessCfg(**config), is_train=False)

    def __call__(self, item: Any) -> Tensor:
        """`pixel_values` of one RGB picture, `(3, height, width)`, float32.

        Raises:
            DataError: `item` is not a loaded picture, or so elongated that resizing it would take all memory.
        """
        picture = as_rgb(item, "open_clip")
        if self._pad == "square":
            picture = pad_to_square(picture, mean_color(self.config["mean"]))
        elif self.config["resize_mode"] == "shortest":
            size = self.config["size"]
            check_strip(picture, size if isinstance(size, int) else max(size))
        pixel_values: Tensor = self._transform(picture)
        return pixel_values

    def settings(self) -> str:
        """Everything that changes `pixel_values`, as canonical JSON."""
        return json.dumps({"pad": self._pad, **self.config}, sort_keys=True, default=str)
