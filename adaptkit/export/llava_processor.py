"""The stock processor of an exported LLaVA: tokenizer, chat template and the pictures' preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor
from transformers import LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from adaptkit.errors import ModelError
from adaptkit.export.compatibility import select_strategy
from adaptkit.export.templates import flat_template
from adaptkit.export.verification import compare_ids
from adaptkit.export.vocabulary import Placeholder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor

_SETTINGS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std"),
)
_PIXEL_TOLERANCE = 0.05
"""Pixel values span about 4; another order of resizing and padding would differ by more than this."""


def write_llava_processor(
    processor: AdaptkitProcessor, model: AdaptkitForConditionalGeneration, placeholder: Placeholder, folder: Path
) -> float:
    """Write a `LlavaProcessor`, read it back, and compare what both make of a conversation with two pictures.

    Returns:
        The largest difference of pixel values.

    Raises:
        ModelError: Token ids differ, or pixel values by more than rounding.
    """
    assert placeholder.token is not None
    ((modality, encoder),) = ((name, cast(Any, encoder)) for name, encoder in model.encoders.items())
    stock = LlavaProcessor(
        image_processor=_picture_processor(encoder),
        tokenizer=placeholder.tokenizer,
        patch_size=encoder.config.patch_size,
        vision_feature_select_strategy=select_strategy(encoder),
        num_additional_image_tokens=int(encoder.has_cls),
        image_token=placeholder.token,
        chat_template=flat_template(processor, modality, placeholder),
    )
    stock.save_pretrained(folder)
    stock.image_processor.save_pretrained(folder)  # where libraries before transformers 5 look for it
    return _compare(processor, modality, folder)


def _picture_processor(encoder: Any) -> Any:
    """The checkpoint's own, or LLaVA's with the same settings where pictures are made square first."""
    own, pad = encoder.build_preprocessor().processor, encoder.options.pad
    if pad == "none":
        return own
    given = own.to_dict()
    settings = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
    settings = {"do_center_crop": False, **settings}
    if pad == "stretch":
        side = encoder.config.image_size
        settings |= {"do_center_crop": False, "size": {"height": side, "width": side}, "resample": Resampling.BICUBIC}
    return LlavaImageProcessorPil(**settings, do_pad=pad == "square")


def _compare(ours: AdaptkitProcessor, modality: str, folder: Path) -> float:
    stock = LlavaProcessor.from_pretrained(folder, backend="pil")  # as the workflow's, where torchvision is installed
    difference = 0.0
    for width, height in ((64, 64), (97, 41)):
        picture = _gradient(width, height)
        theirs = stock.image_processor(picture, return_tensors="pt")["pixel_values"][0]
        mine = ours.modalities[modality].load(picture)
        if theirs.shape != mine.shape:
            raise ModelError(
                f"a picture of {width} by {height} becomes {tuple(mine.shape)} here and {tuple(theirs.shape)} in the "
                "stock processor."
            )
        difference = max(difference, float((theirs - mine).abs().max()))
    if difference > _PIXEL_TOLERANCE:
        raise ModelError(f"the stock processor makes other pixel values: they differ by {difference:.2g}.")
    if ours.chat_template is not None:
        _compare_ids(ours, stock, modality)
    return difference


def _compare_ids(ours: AdaptkitProcessor, stock: Any, modality: str) -> None:
    picture, one, two = _gradient(40, 30), {"type": "text", "text": "one "}, {"type": "text", "text": "\ntwo"}
    messages = [{"role": "user", "content": [one, {"type": "image", "image": picture}, two]}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}

    def theirs() -> Tensor:
        ids: Tensor = stock.apply_chat_template(messages, **options)["input_ids"]
        return ids

    compare_ids(ours, modality, [one, {"type": modality, modality: picture}, two], theirs, stock.image_token_id)


def _gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [255 * columns / width, 255 * rows / height, 127 + 127 * np.sin(columns / 7 + rows / 5)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))
