"""Writing a workflow: its own tensors, its configuration, and references to what it was built on."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from torch import Tensor

from adaptkit.interfaces import Encoder
from adaptkit.model.encoders import save_encoder
from adaptkit.model.packages import packages_of
from adaptkit.model.reference import (
    base_reference,
    content_hash,
    encoder_relative_to_checkpoint,
    relative_to_checkpoint,
)

if TYPE_CHECKING:
    from adaptkit.model.composite import AdaptkitForConditionalGeneration

ENCODERS_FOLDER = "encoders"
TENSORS_FILE = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000

_hashes: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_references: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def save_workflow(
    model: AdaptkitForConditionalGeneration,
    directory: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    **_: Any,
) -> None:
    """Write the workflow's own tensors as safetensors, and a `config.json` that names base and encoders.

    Frozen models are hashed once and named by id or path; encoders that were given as objects are written to
    `encoders/<modality>/`.

    Args:
        model: The workflow.
        directory: Where to.
        state_dict: Its own tensors, where they had to be gathered from several processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own = model.trainable_state_dict() if state_dict is None else state_dict
    state = {name: tensor.cpu() for name, tensor in own.items()}
    _save_tensors(state, directory)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.base = dict(reference_of(model.base))
    config.base["name_or_path"] = relative_to_checkpoint(config.base["name_or_path"], directory)
    for name, entry in config.modalities.items():
        encoder = cast(Encoder, model.source_encoders[name])
        reference = encoder_relative_to_checkpoint(entry["encoder"], directory)
        entry["encoder"] = {**reference, "content_hash": hash_of(encoder)}
        save_encoder(encoder, entry["encoder"], directory / ENCODERS_FOLDER / name)
    config.packages = packages_of(config)
    config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)


def _save_tensors(state: dict[str, Tensor], directory: Path) -> None:
    """Write one file, or shards with an index where one would be very large."""
    if sum(tensor.nbytes for tensor in state.values()) > MAX_SHARD_BYTES:
        save_torch_state_dict(state, directory, metadata={"format": "pt"}, max_shard_size=MAX_SHARD_BYTES)
    else:
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()}, directory / TENSORS_FILE, {"format": "pt"}
        )


def reference_of(base: Any) -> dict[str, Any]:
    """`base_reference`, computed once per base object."""
    if base not in _references:
        _references[base] = base_reference(base)
    return _references[base]


def hash_of(module: Any) -> str:
    """`content_hash`, computed once per frozen module."""
    if module not in _hashes:
        _hashes[module] = content_hash(module)
    return _hashes[module]
