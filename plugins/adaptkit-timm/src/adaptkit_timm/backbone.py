"""Backbones of timm: built without a classifier, probed without weights, filled strictly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
import torch
from adaptkit_image.preprocessing import Layout, probe_layout
from timm.models import load_state_dict
from torch import Tensor, nn

from adaptkit.errors import ModelError, first_line
from adaptkit.files.checkpoints import load_part
from adaptkit.files.loading import reading
from adaptkit_timm.checkpoint import check_known


def build_backbone(name: str, image_size: int | None = None, device: str = "cpu", **arguments: Any) -> nn.Module:
    """A backbone with random weights and no classifier.

    Args:
        image_size: Told to models that are built for one size.
        device: `meta` builds it without memory.
        arguments: More of `timm.create_model`.

    Raises:
        ModelError: timm has no such model, or it gives no intermediate features.
    """
    check_known(name)
    try:
        model = _create(name, device, arguments)
        if image_size is not None and model.pretrained_cfg.get("fixed_input_size"):
            model = _create(name, device, {**arguments, "img_size": image_size})
    except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"timm builds no {name}: {first_line(error)}.") from error
    if not hasattr(model, "forward_intermediates"):
        raise ModelError(f"{name} gives no intermediate features (forward_intermediates).")
    backbone: nn.Module = model.eval()
    return backbone


def _create(name: str, device: str, arguments: dict[str, Any]) -> Any:
    with torch.device(device):
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)


def data_config(model: Any, image_size: int | None) -> dict[str, Any]:
    """How a model's pictures are prepared, by `timm.data`, at the size that it is built for."""
    built_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    size = built_for if image_size is None else (image_size, image_size)
    sized = {} if size is None else {"input_size": (3, *size)}
    return dict(timm.data.resolve_model_data_config(model, args=sized))


def probe_name(name: str, image_size: int | None, layer: int) -> tuple[dict[str, Any], Layout]:
    """Data configuration and layout of a backbone that is not built, or, where that fails, built for this alone."""
    model = build_backbone(name, image_size, "meta")
    config = data_config(model, image_size)
    try:
        return config, probe(model, config, layer)
    except (NotImplementedError, RuntimeError):
        return config, probe(build_backbone(name, image_size), config, layer)


def probe(model: Any, config: dict[str, Any], layer: int) -> Layout:
    """What a backbone gives, found by running it.

    Raises:
        ModelError: It has no such layer.
    """
    _, height, width = config["input_size"]

    def run(pixel_values: Tensor) -> tuple[list[Tensor], int]:
        states = model.forward_intermediates(pixel_values, intermediates_only=True)
        return states, getattr(model, "num_prefix_tokens", 0)

    return probe_layout(model, (height, width), layer, run)


def intermediate(model: Any, pixel_values: Tensor, layout: Layout, keep_prefix: bool) -> Tensor:
    """Features of the chosen layer in reading order, `(num_items, positions, feature_size)`."""
    wanted = {"return_prefix_tokens": True} if keep_prefix else {}
    [state] = model.forward_intermediates(
        pixel_values, indices=[layout.layer], stop_early=True, intermediates_only=True, output_fmt="NCHW", **wanted
    )
    grid, prefix = state if keep_prefix else (state, None)
    features: Tensor = grid.flatten(2).transpose(1, 2)
    return features if prefix is None else torch.cat([prefix, features], 1)


def fill(model: nn.Module, weights: Path) -> None:
    """Load a backbone's weights; those of a classifier are skipped.

    Raises:
        ModelError: They cannot be read, or some are not there.
    """
    with reading(weights, advice="Convert it to safetensors."):
        state = load_state_dict(str(weights), weights_only=True)
    load_part(model, _adapted(state, model), weights, "backbone")


def _adapted(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """As timm does it: original layouts are renamed, position embeddings resized to the model's grid."""
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        adapted: dict[str, Tensor] = adapt(state, model)
    except (AttributeError, KeyError, RuntimeError):  # foreign files fail here; loading them then says what is absent
        return state
    return adapted
