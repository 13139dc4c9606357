"""What a recipe may say of the encoder `timm`. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adaptkit import Options


class TimmOptions(Options):
    """Which backbone, and which of its features.

    Attributes:
        model: Name of the architecture, with the tag of its weights where it is to be told
            (`vit_small_patch14_dinov2.lvd142m`), or `hf-hub:ORG/NAME`. A folder that timm wrote says it by itself.
        path: A weights file (safetensors, or a pickled one that holds tensors alone), or a folder with one.
        pretrained: Take the published weights of `model` from the Hugging Face hub, or its cache, instead of a path.
        layer: Index into the backbone's intermediate outputs: blocks of a transformer, stages of a pyramid.
        keep_prefix: Keep class and register tokens before the patches.
        image_size: Side of the pictures in pixels, where it is to differ from what the model was trained with.
        pad: `none` leaves shapes to timm's own evaluation transform, which for most models crops the centre; `square`
            centres the picture on a square of the mean colour and crops nothing.
        dtype: Of the weights.
    """

    model: str | None = None
    path: str | None = None
    pretrained: bool = False
    layer: int = -2
    keep_prefix: bool = False
    image_size: int | None = Field(default=None, ge=1)
    pad: Literal["none", "square"] = "none"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained == (self.path is not None):
            raise ValueError("give path, or pretrained: true, and not both: where else would the weights come from?")
        if self.pretrained and self.model is None:
            raise ValueError("pretrained: true needs a model to take the published weights of")
        return self
