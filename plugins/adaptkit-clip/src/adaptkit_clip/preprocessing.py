"""From a picture to `pixel_values`, without loading weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Preprocessor
from adaptkit_clip import ClipOptions
from adaptkit_clip.checkpoint import provide, resolve

FAMILIES = {"clip": "clip", "clip_vision_model": "clip", "siglip": "siglip", "siglip_vision_model": "siglip"}
_PROCESSORS = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_MAX_SQUARE_PIXELS = 200_000_000
_USED = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
_NORMALISED = ("do_normalize", "image_mean", "image_std")


class ClipPreprocessor(Preprocessor):
    """Makes a picture square as the options say, then does what the checkpoint's own processor does.

    Args:
        config: A `CLIPVisionConfig` or `SiglipVisionConfig`.
        processor: The transformers image processor.
        options: The encoder's options.

    Raises:
        ModelError: The options do not fit the model: no class token, or patches that cannot be merged evenly.
    """

    input_name = "pixel_values"

    def __init__(self, config: Any, processor: Any, options: ClipOptions) -> None:
        grid = config.image_size // config.patch_size
        for key, asked in {"keep_cls": options.keep_cls, "tokens": options.tokens == "cls"}.items():
            if asked and family_of(config) == "siglip":
                raise ModelError(f"{key}: SigLIP models have no class token. Leave {key} out.")
        if grid % options.merge_size:
            raise ModelError(f"merge_size: {options.merge_size} does not divide the model's {grid} by {grid} patches.")
        patches = (grid // options.merge_size) ** 2 + int(options.keep_cls)
        self.fixed_positions = (1 if options.tokens == "cls" else patches) * len(options.layers())
        self.processor = processor
        if options.normalization == "imagenet":
            processor.image_mean, processor.image_std = _IMAGENET["image_mean"], _IMAGENET["image_std"]
        self._pad = options.pad
        self._side: int = config.image_size

    def __call__(self, item: Any) -> Tensor:
        """`pixel_values` of one RGB picture, `(3, side, side)`, float32.

        Raises:
            DataError: `item` is no loaded picture, or so elongated that its square would be enormous.
            ModelError: The checkpoint's processor makes another size than its model takes.
        """
        if not isinstance(item, Image.Image):
            raise DataError(f"the encoder 'clip' takes loaded pictures (Pillow images), got {type(item).__name__}.")
        picture = item if item.mode == "RGB" else item.convert("RGB")
        if self._pad == "square":
            picture = pad_to_square(picture, self._mean_color())
        elif self._pad == "stretch":
            picture = picture.resize((self._side, self._side), Image.Resampling.BICUBIC)
        pixel_values = torch.from_numpy(np.ascontiguousarray(self.processor(picture)["pixel_values"][0]))
        if pixel_values.shape != (3, self._side, self._side):
            raise ModelError(
                f"the checkpoint's preprocessor_config.json gives pictures of shape "
                f"{tuple(pixel_values.shape)}, its model takes (3, {self._side}, {self._side}): make size and "
                "crop_size agree with image_size."
            )
        return pixel_values

    def settings(self) -> str:
        """Everything that changes `pixel_values`, as canonical JSON."""
        given = self.processor.to_dict()
        used = {key: given.get(key) for key in (*_USED, *_NORMALISED)}
        return json.dumps({"pad": self._pad, **used}, sort_keys=True, default=str)

    def _mean_color(self) -> tuple[int, int, int]:
        red, green, blue = (int(255 * value) for value in self.processor.image_mean)
        return red, green, blue


def pad_to_square(picture: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Centre a picture on a square; an odd remainder goes to the right and bottom."""
    width, height = picture.size
    side = max(width, height)
    if width == height:
        return picture
    if side * side > _MAX_SQUARE_PIXELS:
        raise DataError(
            f"a picture of {width} by {height} pixels would be padded to {side} by {side}: scale it so that "
            f"its longer side is at most {int(_MAX_SQUARE_PIXELS**0.5)} pixels, or set pad: none."
        )
    square = Image.new("RGB", (side, side), color)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def family_of(config: Any) -> str:
    """`clip` or `siglip`.

    Raises:
        ModelError: The configuration is of another family.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in FAMILIES:
        raise ModelError(f"model_type {model_type!r} is not one that 'clip' loads. Known: {', '.join(FAMILIES)}.")
    return FAMILIES[model_type]


def load_vision_config(options: ClipOptions) -> Any:
    """The vision part of a checkpoint's config.

    Raises:
        ModelError: There is no checkpoint, or it is of another family.
    """
    place = resolve(options.path)
    try:
        config = AutoConfig.from_pretrained(place, revision=options.revision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read the config.json of {options.path}: {first_line(error)}. {provide()}") from error
    try:
        family_of(config)
    except ModelError as error:
        raise ModelError(f"{options.path}: {error}") from error
    return getattr(config, "vision_config", config)


def load_preprocessor(options: ClipOptions) -> ClipPreprocessor:
    """The preprocessing of a checkpoint, from its files alone."""
    config = load_vision_config(options)
    return ClipPreprocessor(config, _load_processor(options, config), options)


def default_processor(config: Any) -> Any:
    """The processor of a checkpoint that came without one: the family's means, the model's own size."""
    side = config.image_size
    if family_of(config) == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return SiglipImageProcessorPil(size={"height": side, "width": side})


def first_line(error: BaseException) -> str:
    """The head of an error message, without its closing full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _load_processor(options: ClipOptions, config: Any) -> Any:
    place = resolve(options.path)
    processor_class = _PROCESSORS[family_of(config)]
    if isinstance(place, Path):
        names = ("preprocessor_config.json", "processor_config.json")
        if not any((place / name).is_file() for name in names):
            return default_processor(config)
    elif not _hub_has_processor(place, options.revision):
        return default_processor(config)
    try:
        return processor_class.from_pretrained(place, revision=options.revision)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"cannot read the preprocessor_config.json of {options.path}: {first_line(error)}. {provide()}"
        ) from error


def _hub_has_processor(model_id: str, revision: str | None) -> bool:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(model_id, "preprocessor_config.json", revision=revision)
    except LocalEntryNotFoundError as error:  # unknown is not absent: its means may differ from the family's
        raise ModelError(
            f"the preprocessor_config.json of {model_id} is not in the cache and the hub cannot be reached. {provide()}"
        ) from error
    except EntryNotFoundError:
        return False
    return True
