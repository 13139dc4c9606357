"""Vision towers of open_clip: built without their text half, probed without weights, filled strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from adaptkit_image.preprocessing import Layout, probe_layout
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from adaptkit.errors import ModelError, first_line, unknown_name
from adaptkit.files.checkpoints import load_part
from adaptkit.files.loading import reading
from adaptkit_open_clip.checkpoint import CONFIG_NAME, WEIGHTS_NAME, Checkpoint
from adaptkit_open_clip.options import OpenClipOptions

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
_PREFIX = "visual."


def model_config(checkpoint: Checkpoint | None, model: str | None) -> dict[str, Any]:
    """`model_cfg` of a checkpoint: its own, else that of the named architecture.

    Raises:
        ModelError: open_clip knows no such architecture.
    """
    if checkpoint is not None and checkpoint.config is not None:
        return deepcopy(dict(checkpoint.config["model_cfg"]))
    assert model is not None
    config: Any = open_clip.get_model_config(model) if ":" not in model else None
    if config is None:
        raise ModelError(unknown_name("architecture of open_clip", model, open_clip.list_models()))
    return dict[str, Any](config)


def preprocess_config(
    config: Mapping[str, Any], checkpoint: Checkpoint | None, options: OpenClipOptions
) -> dict[str, Any]:
    """How pictures are prepared: by the checkpoint, else as published weights of the architecture agree."""
    merged = merge_preprocess_dict(PreprocessCfg(), {})
    if checkpoint is not None and checkpoint.config is not None:
        merged = merge_preprocess_dict(merged, checkpoint.config.get("preprocess_cfg") or {})
    elif options.model is not None:
        merged = merge_preprocess_dict(merged, _agreed(options.model))
    merged["size"] = config["vision_cfg"].get("image_size", merged["size"])
    prepared: dict[str, Any] = merge_preprocess_dict(merged, options.preprocess.given())
    return prepared


def _agreed(model: str) -> dict[str, Any]:
    """Settings in which all published weights of an architecture agree: SigLIP's mean is not CLIP's."""
    published = [open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: published[0].get(key) for key in keys if len({str(config.get(key)) for config in published}) == 1}


def build_tower(config: Mapping[str, Any], device: str = "cpu") -> nn.Module:
    """A vision tower with random weights; nothing is downloaded.

    Raises:
        ModelError: open_clip cannot build it.
    """
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    quick_gelu = bool(config.get("quick_gelu", False))
    try:
        with torch.device(device):
            whole: Any = open_clip.CLIP(int(config["embed_dim"]), vision, _NO_TEXT, quick_gelu=quick_gelu)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"open_clip builds no vision tower from {vision}: {first_line(error)}.") from error
    visual: nn.Module = whole.visual
    if not hasattr(visual, "forward_intermediates"):
        raise ModelError(
            f"{type(visual).__name__} of open_clip gives no intermediate features (forward_intermediates)."
        )
    return visual.eval()


def probe_config(config: Mapping[str, Any], layer: int) -> Layout:
    """The layout of a tower that is not built: on the meta device, or, for the few that fail there, on the CPU."""
    try:
        return probe(build_tower(config, "meta"), layer)
    except (ModelError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ModelError) and "out of range" in str(error):
            raise
        return probe(build_tower(config), layer)


def probe(visual: Any, layer: int) -> Layout:
    """What a tower gives, found by running it.

    Raises:
        ModelError: It has no such layer.
    """

    def run(pixel_values: Tensor) -> tuple[list[Tensor], int]:
        output = visual.forward_intermediates(pixel_values, intermediates_only=True, **_prefix_argument(visual))
        return output["image_intermediates"], int(bool(_prefix_of(output)))

    return probe_layout(visual, sides(visual), layer, run)


def intermediate(visual: Any, pixel_values: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
    """Features of a layer, `(num_items, rows * columns, width)`, and its class token, `(num_items, 1, width)`."""
    output = visual.forward_intermediates(
        pixel_values, indices=[layer], stop_early=True, intermediates_only=True, **_prefix_argument(visual)
    )
    [state] = output["image_intermediates"]
    prefix = _prefix_of(output)
    return state.flatten(2).transpose(1, 2), prefix[0] if prefix else None


def sides(visual: Any) -> tuple[int, int]:
    """Height and width of a tower's pictures."""
    size = visual.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def fill(visual: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the vision tower's weights from a checkpoint, whole or vision-only.

    Raises:
        ModelError: It cannot be read, or lacks some of them.
    """
    with reading(checkpoint.weights, advice="Convert it to safetensors."):
        state = load_state_dict(str(checkpoint.weights), weights_only=True)
    holder: Any = nn.Module()
    holder.visual = visual
    state = convert_state_dict(holder, state)
    resize_pos_embed(state, holder)
    own = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    load_part(visual, own, checkpoint.weights, "tower")


def save_tower(visual: nn.Module, folder: Path, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> None:
    """Write a tower and its configuration, as a checkpoint's `path` names them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, default=list) + "\n", encoding="utf-8")
    state = {f"{_PREFIX}{key}": value.contiguous() for key, value in visual.state_dict().items()}
    save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def _prefix_argument(visual: Any) -> dict[str, bool]:
    """Class tokens are asked for where there are some: other towers have no such argument."""
    trunk = getattr(visual, "trunk", None)
    has = getattr(trunk, "num_prefix_tokens", 0) > 0 if trunk is not None else hasattr(visual, "class_embedding")
    return {"output_extra_tokens": True} if has else {}


def _prefix_of(output: Mapping[str, Any]) -> list[Tensor]:
    return list(output.get("image_intermediates_prefix") or [])
