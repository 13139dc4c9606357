"""From a picture to `pixel_values`, by open_clip's own transform."""

from __future__ import annotations

from typing import Any

from adaptkit_image.preprocessing import Layout, TransformPreprocessor
from open_clip.transform import PreprocessCfg, image_transform_v2

from adaptkit.errors import ModelError
from adaptkit_open_clip.options import OpenClipOptions


class OpenClipPreprocessor(TransformPreprocessor):
    """Makes a picture square if asked to, then applies the transform that open_clip evaluates the model with.

    Args:
        config: `preprocess_cfg` in open_clip's words.

    Raises:
        ModelError: The class token is asked for and there is none.
    """

    def __init__(self, config: dict[str, Any], layout: Layout, options: OpenClipOptions) -> None:
        if options.keep_cls and not layout.num_prefix:
            raise ModelError("keep_cls: the tower has no class token. Remove keep_cls.")
        self.layout = layout
        self.fixed_positions = layout.rows * layout.columns + int(options.keep_cls)
        transform: Any = image_transform_v2(PreprocessCfg(**config), is_train=False)
        size = config["size"]
        side = size if isinstance(size, int) else max(size)
        resized_side = side if config["resize_mode"] == "shortest" else None
        super().__init__("open_clip", config, transform, options.pad, resized_side)
