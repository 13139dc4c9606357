"""A tiny random model of the same family, for `adaptkit train --rehearse`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adaptkit.errors import ModelError
from adaptkit_clip.families import FAMILIES, default_processor, family_name
from adaptkit_clip.options import ClipOptions
from adaptkit_clip.preprocessing import load_vision_config

_PATCH_SIZE = 8


def write_stand_in(options: ClipOptions, directory: Path) -> ClipOptions:
    """Write model and processor under `directory`.

    The family is read from the checkpoint's config where it is here, else told by its name.

    Returns:
        The same options, naming the stand-in.
    """
    family = FAMILIES[_family_name(options)]
    config: Any = family.config_class(**_sizes(options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = family.model_class(config)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    default_processor(config).save_pretrained(directory)
    return options.model_copy(update={"path": str(directory), "revision": None})


def _sizes(options: ClipOptions) -> dict[str, Any]:
    name = _family_name(options)
    squares = 2 * max(2, options.merge_size)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": max(2, *(layer if layer >= 0 else -layer for layer in options.layers().values())),
        "num_attention_heads": 2,
        "patch_size": _PATCH_SIZE,
    }
    sizes |= {"mlp_ratio": 2} if name.startswith("dinov2") else {"intermediate_size": 64}
    sizes |= {"num_patches": squares**2} if FAMILIES[name].any_shape else {"image_size": _PATCH_SIZE * squares}
    return sizes


def _family_name(options: ClipOptions) -> str:
    try:
        return family_name(load_vision_config(options, local_files_only=True))
    except ModelError:
        return _family_by_name(options.path.lower())


def _family_by_name(path: str) -> str:
    if "naflex" in path:
        return "siglip2"
    if "dinov2" in path:
        return "dinov2_with_registers" if "reg" in path else "dinov2"
    return "siglip" if "siglip" in path else "clip"
