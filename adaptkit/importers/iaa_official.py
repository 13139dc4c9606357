"""The checkpoint that the authors of IAA released (arXiv 2408.12902), as adaptkit workflows.

It holds one Llama with two sets of inserted layers, embeddings, norms, heads and projectors under names of its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from adaptkit.chat.template import stop_settings
from adaptkit.chat.vocabulary import check_vocabulary
from adaptkit.errors import ModelError
from adaptkit.files.hashing import StreamHasher
from adaptkit.files.hub import cached_snapshots, download
from adaptkit.files.loading import load_stock, read_json, reading
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.files.writing import staged_together, write_json
from adaptkit.importers.results import ImportedWorkflows
from adaptkit.importers.streaming import TensorSource, write_checkpoint
from adaptkit.importers.towers import ENCODER_FOLDER, Tower, find_tower, write_tower
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.encoders import build_encoder
from adaptkit.model.integrity import HASHES, content_record
from adaptkit.model.modality import WorkflowModality
from adaptkit.model.portable_config import portable_text_config
from adaptkit.model.reference import place_of, relative_to_checkpoint
from adaptkit.model.saving import MAX_SHARD_BYTES
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.surgery import Decoder

RELEASED_LAYERS = (0, 1, 5, 6, 10, 11, 15, 16, 20, 21, 25, 26, 30, 31)
"""Hard-coded in the authors' model for 32 layers; a checkpoint's config does not say it."""

PLACEHOLDER = "<|reserved_special_token_44|>"
PLACEHOLDER_ID = 128049
"""What stands for a picture in the authors' prompts; they replace its id by -200 before the model sees it."""

END_OF_TURN = "<|eot_id|>"
MODALITY = "image"
BASE_FOLDER = "base"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)


_LAYERS = "model.condition_layers"
_ENDS = {
    "model.embed_tokens.weight": "model.embed_tokens_condition{}.weight",
    "model.norm.weight": "model.norm_condition{}.weight",
    "lm_head.weight": "lm_head_condtion{}.weight",
}
"""Their names of embedding, final norm and head, a workflow's suffix in each; "condtion" is their spelling."""

_WORKFLOWS = {"vision": ("", "model.mm_projector"), "grounding": ("_grounding", "model.mm_projector_G")}
"""For each workflow the suffix of its layers and ends, and the name of its projector."""

_Shapes = dict[str, tuple[int, ...]]


def import_iaa_official(
    source: str | Path,
    output: str | Path,
    encoder: str | Path | None = None,
    *,
    base: str | Path | None = None,
    insertion_layers: Sequence[int] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> ImportedWorkflows:
    """Turn the authors' checkpoint into `output/base`, `output/vision` and `output/grounding`.

    Tensors are copied one output shard at a time, unchanged in value and dtype.

    Args:
        source: Folder with their `config.json` and safetensors, single or sharded.
        output: Where to write; its subfolders must not exist yet.
        encoder: Folder or id of the vision tower. Else it is taken from where the config's `mm_vision_tower` points, or
            from the checkpoint itself, where that has the tower's tensors and a config for them is at hand.
        base: Folder or id of the frozen LLM, to refer to instead of writing `output/base`. Where the checkpoint holds
            the LLM too, both must be equal.
        insertion_layers: Layers of the LLM after which the inserted ones stand, in their order. Else the config's
            `ehce_layers`, or the released list where there are 32 layers.
        max_shard_bytes: Largest size of an output shard, and about the memory that is needed.

    Returns:
        The folders.

    Raises:
        ModelError: Something is missing, damaged, or of another kind than the authors' checkpoint.
        PluginError: No installed plugin provides the encoder `clip`, or the projector.
    """
    source, output = Path(source), Path(output)
    values = read_json(source / "config.json")
    with reading(source / "config.json"):
        if values.get("model_type") != "IAA" and "IAALlamaForCausalLM" not in (values.get("architectures") or []):
            raise ModelError(
                f"{source} is a {values.get('model_type')!r} checkpoint ({values.get('architectures')}); the authors' "
                "IAA has model_type 'IAA' and architecture 'IAALlamaForCausalLM'."
            )
        tensors = TensorSource(source)
        config = _llama_config(values, tensors)
        order = _insertion_order(values, tensors, config, insertion_layers)
    written = [*([] if base else [BASE_FOLDER]), ENCODER_FOLDER, *_WORKFLOWS]
    with staged_together(output, written) as staging, reading(source / "config.json"):
        tower = find_tower(values, tensors, source, staging, None if encoder is None else str(encoder))
        if base is None:
            base_folder = staging / BASE_FOLDER
            reference = _write_base(tensors, config, source, base_folder, max_shard_bytes)
        else:
            base_folder = _base_folder(str(base))
            reference = _compare_base(TensorSource(base_folder), tensors, config, base_folder)
        tokenizer = _tokenizer(base_folder)
        if tokenizer is not None:
            check_vocabulary(tokenizer, config.vocab_size, f"{base_folder}: ")
        write_tower(tower, tensors, max_shard_bytes)
        modality, projector = _modality(values, tower, config, tokenizer)
        for workflow, theirs in _WORKFLOWS.items():
            folder = staging / workflow
            described = _workflow_config(config, order, modality, reference, folder)
            mapping = _tensor_names(described, theirs, order, config, projector, tensors)
            write_checkpoint(tensors, mapping, folder, max_shard_bytes=max_shard_bytes)
            described.save_pretrained(folder)
            _write_stops(base_folder, config, tokenizer, folder)
    workflows = {name: output / name for name in _WORKFLOWS}
    tower_path = tower.path if tower.config is None else str((output / ENCODER_FOLDER).resolve())
    return ImportedWorkflows(output / BASE_FOLDER if base is None else base_folder, workflows, tower_path)


# -- what the checkpoint is ------------------------------------------------------------------------------------------


def _llama_config(values: Mapping[str, Any], tensors: TensorSource) -> LlamaConfig:
    """The LLM's own config: what a Llama knows of theirs, with the dtype that is stored."""
    known = {*LlamaConfig().to_dict(), "rope_theta", "rope_scaling", "head_dim"}
    dropped = {"architectures", "model_type", "torch_dtype", "dtype", "transformers_version"}
    config = LlamaConfig(**{key: value for key, value in values.items() if key in known - dropped})
    embedding = "model.embed_tokens_condition.weight"
    if embedding not in tensors.stored:
        raise ModelError(f"{tensors.folder} holds no {embedding}: it is not an IAA checkpoint, or is incomplete.")
    config.dtype = tensors.read(embedding).dtype
    config.architectures = [LlamaForCausalLM.__name__]
    return config


def _insertion_order(
    values: Mapping[str, Any], tensors: TensorSource, config: LlamaConfig, given: Sequence[int] | None
) -> list[int]:
    """For each inserted layer the layer of the LLM that it follows."""
    num_layers = config.num_hidden_layers
    order = given or values.get("ehce_layers")
    if not order and num_layers == 32:
        order = RELEASED_LAYERS
    if not order:
        raise ModelError(
            f"{tensors.folder}: after which layers the inserted ones stand is not said: config.json has no "
            f"ehce_layers, and the authors' list is for 32 layers, not {num_layers}. Give it: --insertion-layers "
            "0,1,5,6 (insertion_layers= in Python)."
        )
    order = [int(layer) for layer in order]
    pattern = re.compile(re.escape(_LAYERS) + r"\.(\d+)\.")
    stored = {int(match[1]) for match in map(pattern.match, tensors.stored) if match}
    if stored != set(range(len(order))) or len(set(order)) != len(order):
        raise ModelError(
            f"{tensors.folder} holds {len(stored)} inserted layers, but the insertion list has {len(order)} entries: "
            f"{order}. Each entry names, once, the layer that one of them follows."
        )
    if not all(0 <= layer < num_layers for layer in order):
        raise ModelError(f"the insertion list {order} names layers that a decoder of {num_layers} layers has not.")
    return order


# -- the frozen LLM --------------------------------------------------------------------------------------------------


def _base_parameters(config: LlamaConfig) -> _Shapes:
    return {name: tuple(p.shape) for name, p in _empty_llama(config).named_parameters()}


def _empty_llama(config: LlamaConfig) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def _write_base(
    tensors: TensorSource, config: LlamaConfig, source: Path, folder: Path, max_shard_bytes: int
) -> dict[str, Any]:
    """Write the LLM as a stock checkpoint; return the reference by which workflows name it."""
    shapes = _base_parameters(config)
    _check(tensors, shapes, "Where the checkpoint lacks the LLM, name it: --base.")
    content = _Content()
    names = {name: name for name in shapes}
    write_checkpoint(tensors, names, folder, max_shard_bytes=max_shard_bytes, observe=content.add)
    config.save_pretrained(folder)
    values = {**portable_text_config(config), **read_json(folder / "config.json")}  # older libraries read it as well
    write_json(folder / "config.json", values)
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    _write_generation_config(config, source, folder)
    return _reference(str(folder), config, content)


def _base_folder(base: str) -> Path:
    """Where a base given by folder or id lies on this machine."""
    missing = missing_model(base)
    if missing:
        raise ModelError(f"base: {missing}.")
    folder = Path(resolve_model_path(base))
    return folder if folder.is_dir() else next(iter(cached_snapshots(base)), None) or download(base, {})


def _compare_base(given: TensorSource, tensors: TensorSource, config: LlamaConfig, folder: Path) -> dict[str, Any]:
    """Check that a base is the LLM of the checkpoint, as far as that holds it; return the reference to it."""
    shapes = _base_parameters(config)
    _check(given, shapes, "Name the LLM that IAA was built on.")
    content = _Content()
    for parameter in sorted(shapes):
        value = given.read(parameter)
        content.add(parameter, value)
        if parameter in tensors.stored and not torch.equal(value, tensors.read(parameter).to(value.dtype)):
            raise ModelError(f"{folder} is another LLM than the one in {tensors.folder}: {parameter} differs.")
    return _reference(str(folder), config, content)


class _Content:
    """The hashes of `adaptkit.model.integrity.content_record`, of tensors that come one by one."""

    def __init__(self) -> None:
        self._hashers = {key: StreamHasher() for key in HASHES}

    def add(self, name: str, tensor: Tensor) -> None:
        for key, dtype in HASHES.items():
            self._hashers[key].update(name, tensor.to(dtype))

    def record(self) -> dict[str, str]:
        return {key: hasher.hexdigest() for key, hasher in self._hashers.items()}


def _reference(name_or_path: str, config: LlamaConfig, content: _Content) -> dict[str, Any]:
    origin = place_of(name_or_path)
    return {
        "name_or_path": origin.name,
        "revision": origin.revision,
        "architecture": LlamaForCausalLM.__name__,
        "dtype": str(config.dtype).removeprefix("torch."),
        **content.record(),
    }


def _write_generation_config(config: LlamaConfig, source: Path, folder: Path) -> None:
    """Theirs, or what the config says; with the end of a turn, at which their program stops, among its ends."""
    path = source / "generation_config.json"
    values = read_json(path) if path.is_file() else {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if values.get(key) is None and getattr(config, key) is not None:
            values[key] = getattr(config, key)
    end_of_turn = _token_id(_tokenizer(folder), END_OF_TURN)
    ends = values.get("eos_token_id")
    ends = list(ends) if isinstance(ends, list) else [] if ends is None else [ends]
    if end_of_turn is not None and end_of_turn not in ends:
        values["eos_token_id"] = [*ends, end_of_turn]
    write_json(folder / "generation_config.json", values)


def _write_stops(base_folder: Path, config: LlamaConfig, tokenizer: Any, folder: Path) -> None:
    """Write a workflow's generation config: the base's, with the ends of a turn that the chat template writes."""
    path = base_folder / "generation_config.json"
    values = read_json(path) if path.is_file() else {"eos_token_id": config.eos_token_id}
    if tokenizer is not None:
        values |= stop_settings(tokenizer, tokenizer.chat_template, values.get("eos_token_id"))
    write_json(folder / "generation_config.json", values)


def _token_id(tokenizer: Any, token: str) -> int | None:
    token_id: int | None = None if tokenizer is None else tokenizer.get_vocab().get(token)
    return token_id


def _tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; None where it has no tokenizer files."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    return load_stock(AutoTokenizer, folder)


# -- the workflows ---------------------------------------------------------------------------------------------------


def _modality(
    values: Mapping[str, Any], tower: Tower, config: LlamaConfig, tokenizer: Any
) -> tuple[WorkflowModality, _Shapes]:
    """The description of pictures in a workflow, checked against the encoder, and the shapes of its projector."""
    options = {
        "path": tower.path,
        "feature_layer": values.get("mm_vision_select_layer", -2),
        "keep_cls": values.get("mm_vision_select_feature", "patch") == "cls_patch",
        "pad": "square" if values.get("image_aspect_ratio") == "pad" else "none",
    }
    encoder, reference = build_encoder({"name": "clip", **options})
    if encoder.feature_size != values.get("mm_hidden_size", encoder.feature_size):
        raise ModelError(
            f"the encoder {tower.path} gives features of width {encoder.feature_size}, the checkpoint was trained on "
            f"{values['mm_hidden_size']} (mm_hidden_size). Name the tower it was trained with: --encoder."
        )
    projector = values.get("mm_projector_type", "linear")
    with torch.device("meta"):
        module = get_plugin_manager().build(
            "projector", projector, {}, encoder.feature_size, config.hidden_size, projector
        )
    placeholder_id = _token_id(tokenizer, PLACEHOLDER)
    named = placeholder_id is not None or config.vocab_size > PLACEHOLDER_ID
    if placeholder_id is None:
        placeholder_id = PLACEHOLDER_ID if named else config.vocab_size
    described = WorkflowModality(
        encoder={**reference, **content_record(encoder)},
        projector={"name": projector, "options": {}},
        placeholder_id=placeholder_id,
        placeholder=PLACEHOLDER if named else None,
        feature_mode="splice",
    )
    return described, {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _workflow_config(
    config: LlamaConfig, order: Sequence[int], modality: WorkflowModality, base: Mapping[str, Any], folder: Path
) -> AdaptkitConfig:
    decoder = Decoder(_empty_llama(config))
    decoder.insert_copies_after(sorted(order))
    text_config: PreTrainedConfig = decoder.config
    text_config.tie_word_embeddings = False
    described = AdaptkitConfig(
        text_config=text_config,
        base=relative_to_checkpoint(base, folder),
        modalities={MODALITY: modality.relative_to(folder).to_dict()},
        insertion={"policy": "inner_adapter", "placement": {"layers": sorted(order)}},
        replace_ends=True,
        layer_map=[[record.kind, record.source] for record in decoder.layer_map],
    )
    described.architectures = [AdaptkitForConditionalGeneration.__name__]
    return described


def _tensor_names(
    described: AdaptkitConfig,
    theirs: tuple[str, str],
    order: Sequence[int],
    config: LlamaConfig,
    projector: _Shapes,
    tensors: TensorSource,
) -> dict[str, str]:
    """For each of a workflow's own tensors its name in the checkpoint; all are checked to be there."""
    suffix, projector_name = theirs
    base = _base_parameters(config)
    names: dict[str, str] = {}
    shapes: _Shapes = {}
    for index, (kind, follows) in enumerate(described.layer_map):
        for stock in (name for name in base if kind == "inserted" and ".layers.0." in name):
            name = stock.removeprefix("model.layers.0.")
            old = names[f"language_model.model.layers.{index}.{name}"] = (
                f"{_LAYERS}{suffix}.{order.index(follows)}.{name}"
            )
            shapes[old] = base[stock]
    for name, pattern in _ENDS.items():
        old = names[f"language_model.{name}"] = pattern.format(suffix)
        shapes[old] = base[name]
    for name, shape in projector.items():
        old = names[f"projectors.{MODALITY}.{name}"] = f"{projector_name}.{name}"
        shapes[old] = shape
    _check(tensors, shapes, "")
    return names


def _check(tensors: TensorSource, shapes: _Shapes, advice: str) -> None:
    missing = sorted(name for name in shapes if name not in tensors.stored)
    if missing:
        raise ModelError(f"{tensors.folder} lacks {len(missing)} tensors, {missing[0]} among them. {advice}".strip())
    for name, shape in shapes.items():
        found = tensors.stored[name].shape
        if found != shape:
            raise ModelError(f"{tensors.folder}: {name} has shape {found}; its config makes it {shape}.")
