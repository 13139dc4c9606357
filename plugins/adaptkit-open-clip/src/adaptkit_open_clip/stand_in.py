"""A tiny random tower of the same family, for `adaptkit train --rehearse`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adaptkit.errors import ModelError
from adaptkit_open_clip.checkpoint import is_here, locate
from adaptkit_open_clip.options import OpenClipOptions
from adaptkit_open_clip.tower import build_tower, model_config, preprocess_config, save_tower

_PATCH_SIZE = 16
_IMAGE_SIZE = 64


def write_stand_in(options: OpenClipOptions, directory: Path) -> OpenClipOptions:
    """Write a tower and its configuration under `directory`: a transformer, or a ResNet where the named one is.

    Returns:
        The same options, naming the stand-in.
    """
    config = _config(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        visual = build_tower(config)
    save_tower(visual, directory, config, preprocess_config(config, None, options))
    return options.model_copy(update={"path": str(directory), "model": None})


def _config(options: OpenClipOptions) -> dict[str, Any]:
    vision: dict[str, Any] = {"image_size": _IMAGE_SIZE, "width": 32}
    if _is_resnet(options):
        # open_clip wants the stem's width to divide into heads of 64
        vision |= {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
    else:
        depth = max(2, options.layer + 1 if options.layer >= 0 else -options.layer)
        vision |= {"layers": depth, "head_width": 16, "patch_size": _PATCH_SIZE, "mlp_ratio": 2.0}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {"width": 8, "heads": 1, "layers": 1}}


def _is_resnet(options: OpenClipOptions) -> bool:
    """Told by the configuration where it is on this machine, else by name; a class token needs a transformer."""
    if options.keep_cls:
        return False
    if options.model is None and not is_here(options.path):
        return "rn50" in options.path.lower()
    try:
        config = model_config(None if options.model else locate(options.path, None), options.model)
    except ModelError:
        return False
    return isinstance(config["vision_cfg"].get("layers"), list)
