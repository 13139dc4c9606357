"""A tiny random backbone of the same family, for `adaptkit train --rehearse`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import model_entrypoint, save_for_hf

from adaptkit.errors import ModelError
from adaptkit_timm.backbone import build_backbone, data_config, probe_name
from adaptkit_timm.options import TimmOptions

_TRANSFORMER, _PYRAMID = "test_vit", "test_convnext"


def write_stand_in(options: TimmOptions, directory: Path) -> TimmOptions:
    """Write a backbone under `directory` as timm does: one of its test models, of the same module where there is one.

    Returns:
        The same options, naming the stand-in. A layer that it does not have becomes its last.
    """
    name = _name(options)
    depth = max(2, options.layer + 1 if options.layer >= 0 else -options.layer)
    arguments: dict[str, Any] = {"depth": depth} if name == _TRANSFORMER else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_backbone(name, **arguments)
    save_for_hf(model, str(directory), safe_serialization=True, data_config=data_config(model, None))
    changes = {"path": str(directory), "model": None, "pretrained": False, "image_size": None}
    made = options.model_copy(update=changes)
    try:
        probe_name(f"local-dir:{directory}", None, options.layer)
    except ModelError:
        return made.model_copy(update={"layer": -1})
    return made


def _name(options: TimmOptions) -> str:
    """The test model that comes nearest; keeping prefix tokens needs a transformer."""
    architecture = _architecture(options)
    if options.keep_prefix or not timm.is_model(architecture):
        return _TRANSFORMER
    module = model_entrypoint(architecture).__module__
    kin = [name for name in timm.list_models("test_*") if model_entrypoint(name).__module__ == module]
    if _TRANSFORMER in kin or not kin:
        return _TRANSFORMER if _is_flat(architecture) else _PYRAMID
    return str(kin[0])


def _is_flat(architecture: str) -> bool:
    """Whether all its layers have one resolution."""
    model: Any = build_backbone(architecture, device="meta")
    inputs = torch.zeros(1, *data_config(model, None)["input_size"], device="meta")
    states = model.forward_intermediates(inputs, intermediates_only=True)
    return bool(states[0].shape[2:] == states[-1].shape[2:])


def _architecture(options: TimmOptions) -> str:
    """Name of the architecture without its tag, from the folder's config.json where that says it."""
    config = Path(options.path or "").expanduser() / "config.json"
    if options.path is not None and config.is_file():
        return str(json.loads(config.read_text(encoding="utf-8")).get("architecture", ""))
    return (options.model or "").rsplit("/")[-1].removeprefix("hf-hub:").split(".")[0]
