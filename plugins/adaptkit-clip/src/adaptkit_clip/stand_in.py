"""A tiny random model of the same family, for `adaptkit train --rehearse`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from adaptkit.errors import ModelError
from adaptkit_clip import ClipOptions
from adaptkit_clip.preprocessing import default_processor, family_of, load_vision_config

_MODELS = {"clip": (CLIPVisionConfig, CLIPVisionModel), "siglip": (SiglipVisionConfig, SiglipVisionModel)}
_PATCH_SIZE = 8


def write_stand_in(options: ClipOptions, directory: Path) -> ClipOptions:
    """Write model and processor under `directory`.

    The family is read from the checkpoint's config where it is here, else told by its name.

    Returns:
        The same options, naming the stand-in.
    """
    config_class, model_class = _MODELS[_family(options)]
    layers = options.layers().values()
    config: Any = config_class(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=max(2, *(layer if layer >= 0 else -layer for layer in layers)),
        num_attention_heads=2,
        image_size=_PATCH_SIZE * 2 * max(2, options.merge_size),
        patch_size=_PATCH_SIZE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    default_processor(config).save_pretrained(directory)
    return options.model_copy(update={"path": str(directory), "revision": None})


def _family(options: ClipOptions) -> str:
    try:
        return family_of(load_vision_config(options))
    except ModelError:
        return "siglip" if "siglip" in options.path.lower() else "clip"
