"""What a recipe may say of the encoder `open_clip`. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from adaptkit import Options


class PreprocessOptions(Options):
    """How pictures are prepared, where it is to differ from what the checkpoint says.

    Attributes:
        mean: Of red, green and blue, in 0..1.
        std: Of red, green and blue, in 0..1.
        interpolation: How pictures are resized.
        resize_mode: `shortest` resizes the shorter edge and crops the centre, `longest` resizes the longer edge and
            pads, `squash` resizes both, whatever the shape.
        fill_color: Grey value, 0 to 255, of what `longest` pads with.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: int | None = Field(default=None, ge=0, le=255)

    def given(self) -> dict[str, Any]:
        """What is said, by open_clip's keys."""
        return self.model_dump(exclude_none=True)


class OpenClipOptions(Options):
    """Which checkpoint, and which of its features.

    Attributes:
        path: A weights file (safetensors, or a pickled one that holds tensors alone), a folder, or `hf-hub:ORG/NAME`.
        model: Name of the architecture, where the folder or hub repository has no open_clip_config.json.
        layer: Index into the tower's intermediate outputs: blocks of a transformer, stages of a convolutional network.
        keep_cls: Keep the class token as the first feature.
        pad: `none` leaves shapes to the checkpoint's own transform; `square` first centres the picture on a square of
            the mean colour, so that nothing is cropped.
        preprocess: Changes to the checkpoint's own transform.
        dtype: Of the weights.
    """

    path: str = Field(min_length=1)
    model: str | None = None
    layer: int = -2
    keep_cls: bool = False
    pad: Literal["none", "square"] = "none"
    preprocess: PreprocessOptions = PreprocessOptions()
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
