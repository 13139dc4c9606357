"""Adapter checkpoints of LaVIN (arXiv 2305.15023), as workflows on a base in the layout of transformers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from adaptkit.chat.shipped import load_chat_template
from adaptkit.errors import ModelError
from adaptkit.files.loading import load_stock, reading
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.files.writing import staged_together
from adaptkit.importers.results import ImportedWorkflows
from adaptkit.model.assembly import adapt
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.integrity import refuse_non_finite
from adaptkit.model.processor import load_processor
from adaptkit.surgery import Decoder, attention_blocks, attention_of, mlp_of

MODALITY = "image"
WORKFLOW = "vision"
ENCODER = "openai/clip-vit-large-patch14"
"""LaVIN's, which its checkpoints do not name."""

SCALE, TEMPERATURE = 1.0, 10.0
"""Of LaVIN's scripts, where a checkpoint does not keep its arguments; visual instruction tuning has temperature 5."""

EVERY = 4
"""Class tokens are taken after every fourth block (hard-coded in LaVIN)."""

_DECODER, _ENCODER = "layers", "backbone.visual.transformer.resblocks"
_ADAPTER = re.compile(rf"({_DECODER}|{re.escape(_ENCODER)})\.(\d+)\.adapter_(attn|mlp)\.(\w+)\.(weight|bias)")
_PARTS = {"conv_A": "down", "conv_B": "experts.0", "conv_D": "experts.1", "expert_weights": "router"}
_OTHERS = {
    "adapter_modality_embedding.weight": "policy_modules.modality_embedding.weight",
    "adapter_proj.conv_A.weight": f"projectors.{MODALITY}.0.weight",
    "adapter_proj.conv_A.bias": f"projectors.{MODALITY}.0.bias",
    "adapter_proj.conv_B.weight": f"projectors.{MODALITY}.2.weight",
    "adapter_proj.conv_B.bias": f"projectors.{MODALITY}.2.bias",
}


def import_lavin(
    source: str | Path,
    output: str | Path,
    base: str | Path,
    encoder: str | Path = ENCODER,
    *,
    scale: float | None = None,
    temperature: float | None = None,
) -> ImportedWorkflows:
    """Turn an adapter checkpoint of LaVIN into the workflow `output/vision` on a base.

    Args:
        source: Their `.pth`, read without running what is pickled in it, or the same tensors as safetensors; or a
            folder that holds one such file.
        output: Where to write; its subfolder `vision` must not exist yet.
        base: Folder or id of the LLaMA that it was trained on, in the layout of transformers, with tokenizer.
        encoder: Folder or id of the CLIP that it was trained with.
        scale: Of the adapters (`adapter_scale`); the checkpoint's, or 1 where that does not say.
        temperature: Of the routers; the checkpoint's, or 10 where that does not say.

    Returns:
        The folders.

    Raises:
        ModelError: The checkpoint is damaged, of a kind that `mma` is not, or was trained on another base or encoder.
        PluginError: No installed plugin provides the encoder `clip`.
    """
    tensors, arguments = _read(Path(source))
    with reading(_file_of(Path(source))):
        shape = _shape_of(tensors)
    with staged_together(output, [WORKFLOW]) as staging:
        options = {
            **shape.options,
            "scale": scale if scale is not None else arguments.get("adapter_scale", SCALE),
            "temperature": temperature if temperature is not None else arguments.get("temperature", TEMPERATURE),
        }
        model = adapt(
            _load_base(str(base), shape),
            {MODALITY: {"encoder": shape.encoder(str(encoder)), "projector": shape.projector}},
            {"policy": "mma", **options},
        )
        names = tensor_names(model)
        with reading(_file_of(Path(source))):
            _check(tensors, names, model)
        model.load_own_tensors({names[name]: value.reshape(_own_shape(value)) for name, value in tensors.items()})
        folder = staging / WORKFLOW
        model.save_pretrained(folder)
        processor = load_processor(folder)
        processor.chat_template = load_chat_template("lavin")
        model.stop_at(processor.stop_settings(model.generation_config))
        model.generation_config.save_pretrained(folder)
        processor.save_pretrained(folder)
    return ImportedWorkflows(Path(base), {WORKFLOW: Path(output) / WORKFLOW}, str(encoder))


def tensor_names(model: AdaptkitForConditionalGeneration) -> dict[str, str]:
    """For each of LaVIN's names that of the tensor in an `mma` workflow with its encoder and projector."""
    encoder: Any = model.encoders[MODALITY]
    towers: dict[str, list[nn.Module]] = {
        _DECODER: list(Decoder(model.language_model).layers),
        _ENCODER: attention_blocks(encoder)[: encoder.num_layers],
    }
    known = {id(module): name for name, module in model.named_modules()}
    names = dict(_OTHERS)
    for tower, layers in towers.items():
        for index, layer in enumerate(layers):
            for place, part in {"attn": attention_of, "mlp": mlp_of}.items():
                adapter = getattr(part(layer), "input_adapter", None)
                for theirs, ours in _PARTS.items() if adapter is not None else ():
                    for kind in ("weight", "bias"):
                        theirs_named = f"{tower}.{index}.adapter_{place}.{theirs}.{kind}"
                        names[theirs_named] = f"{known[id(adapter)]}.{ours}.{kind}"
    return names


@dataclass(frozen=True)
class _Shape:
    """What the tensors of a checkpoint say of the model that they belong to."""

    options: dict[str, Any]
    projector: dict[str, Any]
    hidden_size: int
    num_layers: int
    num_blocks: int

    def encoder(self, path: str) -> dict[str, Any]:
        """LaVIN's features of a CLIP, and its preprocessing."""
        return {
            "name": "clip",
            "path": path,
            "feature_layers": list(range(EVERY, self.num_blocks + 1, EVERY)),
            "tokens": "cls",
            "pad": "stretch",
            "normalization": "imagenet",
        }


def _shape_of(tensors: Mapping[str, Tensor]) -> _Shape:
    """Read sizes off the tensors, and refuse what `mma` is not."""
    absent = [name for name in (*_OTHERS, f"{_DECODER}.0.adapter_attn.conv_A.weight") if name not in tensors]
    if absent:
        raise ModelError(f"this is not an adapter checkpoint of LaVIN, or is incomplete: it lacks {absent[0]}.")
    found = [match for match in map(_ADAPTER.fullmatch, tensors) if match]
    indices = {tower: {int(m[2]) for m in found if m[1] == tower} for tower in (_DECODER, _ENCODER)}
    in_encoder = {m[3] for m in found if m[1] == _ENCODER}
    routed = any(m[1] == _ENCODER and m[4] == "expert_weights" for m in found)
    if in_encoder != {"attn"} or not routed:
        kind = "router_block" if "mlp" in in_encoder else "normal" if in_encoder else "none"
        raise ModelError(
            f"the checkpoint's visual adapters are of the type {kind!r} (visual_adapter_type); mma has those of the "
            "type 'router', which LaVIN's scripts use."
        )
    num_blocks = len(indices[_ENCODER])
    if num_blocks % EVERY:
        raise ModelError(f"the checkpoint's CLIP has {num_blocks} blocks; LaVIN takes features after every {EVERY}th.")
    down, up = (tensors[f"{_DECODER}.0.adapter_attn.{name}.weight"] for name in ("conv_A", "conv_B"))
    return _Shape(
        options={
            "hidden_size": down.shape[0],
            "groups": down.shape[0] // up.shape[1],
            "before_ffn": any(m[1] == _DECODER and m[3] == "mlp" for m in found),
        },
        projector={"name": "mlp_silu", "hidden_size": tensors["adapter_proj.conv_A.weight"].shape[0]},
        hidden_size=down.shape[1],
        num_layers=len(indices[_DECODER]),
        num_blocks=num_blocks,
    )


def _own_shape(value: Tensor) -> tuple[int, ...]:
    """Their 1x1 convolutions are linear maps."""
    return tuple(value.shape[:2]) if value.ndim == 3 else tuple(value.shape)


def _check(tensors: Mapping[str, Tensor], names: Mapping[str, str], model: AdaptkitForConditionalGeneration) -> None:
    missing, unknown = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}, which has no place"
        raise ModelError(
            f"the checkpoint {what} in a workflow on this base and encoder ({len(missing)} tensors missing, "
            f"{len(unknown)} unknown). Name the models that it was trained with: --base, --encoder."
        )
    own = model.trainable_state_dict()
    for theirs, ours in names.items():
        found, expected = _own_shape(tensors[theirs]), tuple(own[ours].shape)
        if found != expected:
            raise ModelError(
                f"{theirs} has shape {found}, where this base and encoder make it {expected}. Name the models that the "
                "checkpoint was trained with: --base, --encoder."
            )


def _load_base(base: str, shape: _Shape) -> PreTrainedModel:
    missing = missing_model(base)
    if missing:
        raise ModelError(f"base: {missing}.")
    model: PreTrainedModel = load_stock(AutoModelForCausalLM, resolve_model_path(base), dtype="auto")
    config = model.config
    if (config.hidden_size, config.num_hidden_layers) != (shape.hidden_size, shape.num_layers):
        raise ModelError(
            f"base: {base} has {config.num_hidden_layers} layers of width {config.hidden_size}; the checkpoint was "
            f"trained on {shape.num_layers} of width {shape.hidden_size}. Name the LLaMA that it was trained on."
        )
    return model


# -- their file ------------------------------------------------------------------------------------------------------


def _read(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by LaVIN's names in float32, and the arguments of their training where the file keeps them."""
    file = _file_of(source)
    with reading(file, advice="Fetch it again."):
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            # Their training script stores its arguments, an object that runs nothing when it is read
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    arguments = content.get("args") if isinstance(content, dict) else None
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no tensors by name, as an adapter checkpoint of LaVIN does.")
    for name, value in state.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # a view that repeats few values
            raise ModelError(f"{file}: {name} has more values than are stored.")
    refuse_non_finite(state.items(), str(file))
    tensors = {str(name).removeprefix("module."): value.float() for name, value in state.items()}
    return tensors, dict(vars(arguments)) if isinstance(arguments, argparse.Namespace) else {}


def _file_of(source: Path) -> Path:
    if source.is_file():
        return source
    for pattern in ("*.safetensors", "*.pth"):
        found = sorted(source.glob(pattern)) if source.is_dir() else []
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(f"{source} holds {len(found)} files {pattern}. Name the one to import.")
    raise ModelError(f"{source} holds no adapter checkpoint (.safetensors or .pth). Name the file, or its folder.")
