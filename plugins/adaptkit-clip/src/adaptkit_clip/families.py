"""What the families of vision models differ in: classes, special tokens, and how a picture becomes hidden states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from adaptkit.errors import ModelError

IMAGENET: dict[str, list[float]] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Family:
    """One kind of vision model.

    Attributes:
        model_types: `model_type` of its configurations, whole and vision-only.
        config_class: Of the vision part.
        model_class: Of the vision part.
        processor_class: Of its pictures.
        embed: From `(model, pixel_values)` to the first hidden states.
        run_layer: From `(layer, hidden_states)` to the next ones.
        has_cls: Whether a class token comes first.
        any_shape: Whether it takes pictures of any number of rows and columns of patches.
    """

    model_types: tuple[str, ...]
    config_class: Any
    model_class: Any
    processor_class: Any
    embed: Callable[[Any, Tensor], Tensor]
    run_layer: Callable[[Any, Tensor], Tensor]
    has_cls: bool = False
    any_shape: bool = False


def _embed_clip(model: Any, pixel_values: Tensor) -> Tensor:
    hidden_states: Tensor = model.pre_layrnorm(model.embeddings(pixel_values))
    return hidden_states


def _embed(model: Any, pixel_values: Tensor) -> Tensor:
    hidden_states: Tensor = model.embeddings(pixel_values)
    return hidden_states


def _embed_patches(model: Any, pixel_values: Tensor) -> Tensor:
    """SigLIP 2 takes patches in reading order, the channels of a pixel side by side."""
    side = model.config.patch_size
    num_pictures, channels, height, width = pixel_values.shape
    rows, columns = height // side, width // side
    blocks = pixel_values.reshape(num_pictures, channels, rows, side, columns, side)
    patches = blocks.permute(0, 2, 4, 3, 5, 1).reshape(num_pictures, rows * columns, side * side * channels)
    shapes = torch.tensor([[rows, columns]] * num_pictures, device=pixel_values.device)
    hidden_states: Tensor = model.embeddings(patches, shapes)
    return hidden_states


def _run_with_mask(layer: Any, hidden_states: Tensor) -> Tensor:
    output: Tensor = layer(hidden_states, None)
    return output


def _run(layer: Any, hidden_states: Tensor) -> Tensor:
    output: Tensor = layer(hidden_states)
    return output


FAMILIES: dict[str, Family] = {
    "clip": Family(
        ("clip", "clip_vision_model"),
        CLIPVisionConfig,
        CLIPVisionModel,
        CLIPImageProcessorPil,
        _embed_clip,
        _run_with_mask,
        has_cls=True,
    ),
    "siglip": Family(
        ("siglip", "siglip_vision_model"),
        SiglipVisionConfig,
        SiglipVisionModel,
        SiglipImageProcessorPil,
        _embed,
        _run_with_mask,
    ),
    "siglip2": Family(
        ("siglip2", "siglip2_vision_model"),
        Siglip2VisionConfig,
        Siglip2VisionModel,
        Siglip2ImageProcessorPil,
        _embed_patches,
        _run_with_mask,
        any_shape=True,
    ),
    "dinov2": Family(("dinov2",), Dinov2Config, Dinov2Model, BitImageProcessorPil, _embed, _run, has_cls=True),
    "dinov2_with_registers": Family(
        ("dinov2_with_registers",),
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        BitImageProcessorPil,
        _embed,
        _run,
        has_cls=True,
    ),
}


def family_name(config: Any) -> str:
    """Key into `FAMILIES` of a configuration.

    Raises:
        ModelError: It is of another family.
    """
    model_type = getattr(config, "model_type", None)
    for name, family in FAMILIES.items():
        if model_type in family.model_types:
            return name
    known = [model_type for family in FAMILIES.values() for model_type in family.model_types]
    raise ModelError(f"model_type {model_type!r} is not one that 'clip' loads. Known: {', '.join(known)}.")


def family_of(config: Any) -> Family:
    """The family of a configuration.

    Raises:
        ModelError: It is of another one.
    """
    return FAMILIES[family_name(config)]


def default_processor(config: Any) -> Any:
    """The processor of a checkpoint that came without one: the family's means, the model's own size."""
    family = family_of(config)
    if family.any_shape:
        return family.processor_class(patch_size=config.patch_size, max_num_patches=config.num_patches)
    side = config.image_size
    square = {"height": side, "width": side}
    if family_name(config) == "siglip":
        return family.processor_class(size=square)
    means = {} if family_name(config) == "clip" else IMAGENET
    return family.processor_class(size={"shortest_edge": side}, crop_size=square, **means)


def num_prefix_tokens(config: Any) -> int:
    """How many tokens come before the patches: the class token and registers."""
    if not family_of(config).has_cls:
        return 0
    return 1 + num_registers(config)


def num_registers(config: Any) -> int:
    """How many register tokens follow the class token."""
    return int(getattr(config, "num_register_tokens", 0))
