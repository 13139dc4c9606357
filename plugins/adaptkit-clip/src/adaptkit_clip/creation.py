"""A CLIP vision model that has seen nothing yet, for those who train their own encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPVisionConfig, CLIPVisionModel

from adaptkit.errors import ModelError, first_line, unknown_name
from adaptkit_clip.families import default_processor
from adaptkit_clip.options import ClipOptions

_KEYS = [field.name for field in dataclasses.fields(CLIPVisionConfig)]
_MODEL_TYPE = "clip_vision_model"


def create_model(config: dict[str, Any], directory: Path) -> ClipOptions:
    """Write model and image processor in the stock layout; weights are drawn from torch's global generator.

    Args:
        config: Fields of a `CLIPVisionConfig`; missing ones take the values of CLIP ViT-B/32.
        directory: Made where it is not there; a model that lies in it is overwritten.

    Returns:
        Options that build the encoder from the folder.

    Raises:
        ModelError: A field is unknown or has an impossible value.
    """
    vision_config = _vision_config(dict(config))
    try:
        model = CLIPVisionModel(vision_config)
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelError(f"no CLIP vision model has the config {config}: {first_line(error)}.") from error
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    default_processor(vision_config).save_pretrained(directory)
    return ClipOptions(path=str(directory))


def _vision_config(config: dict[str, Any]) -> Any:
    if config.pop("model_type", _MODEL_TYPE) != _MODEL_TYPE:
        raise ModelError(f"model_type: only {_MODEL_TYPE!r} can be created.")
    for key in config:
        if key not in _KEYS:
            raise ModelError(unknown_name("field of a CLIPVisionConfig", key, _KEYS))
    try:
        made = CLIPVisionConfig(**config)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"this is not a CLIPVisionConfig: {reason}") from error
    patch_size: Any = made.patch_size
    image_size: Any = made.image_size
    for key, value in {"image_size": image_size, "patch_size": patch_size}.items():
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{key}: {value!r} is not a size in pixels; pictures and patches are square, so give one.")
    if image_size % patch_size:
        raise ModelError(f"image_size: {image_size} is not a multiple of patch_size: {patch_size}.")
    return made
