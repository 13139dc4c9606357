"""References: how a checkpoint names the frozen models it was trained on, and recognises them again."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adaptkit.files.hashing import hash_tensors
from adaptkit.files.hub import cached_commit
from adaptkit.files.paths import final_place, resolve_model_path
from adaptkit.model.origin import is_model_id, origin_of, place_of
from adaptkit.surgery.quantization import PACKED_WEIGHTS, quantization_of

HASHES = {"content_hash": torch.bfloat16, "content_hash_float16": torch.float16}
"""Keys of a record of a frozen model's content, and to what its values are rounded for each."""

_recorded: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()

RELATIVE_PATH = "relative_path"
"""Key of a reference to a folder elsewhere: where that lies as seen from the checkpoint."""


# -- content ---------------------------------------------------------------------------------------------------------


def content_record(module: nn.Module) -> dict[str, str]:
    """Hashes by which a frozen model is recognised in whichever dtype it is loaded."""
    return {key: content_hash(module, dtype) for key, dtype in HASHES.items()}


def content_hash(module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> str:
    """Hash of all parameters and saved buffers of a frozen model, by name, rounded to one dtype.

    Of packed weights only kind and shape count, since devices pack them with other roundings; what is not packed
    (embedding, norms, head) tells bases apart.
    """
    return _hash(module, dtype, dict(_tensors(module)))


def holds_content(module: nn.Module, record: Mapping[str, Any]) -> bool:
    """Whether a frozen model holds what a record describes, whatever the dtypes of both.

    float32 rounded to bfloat16 differs from float32 rounded to float16 and then to bfloat16, so values are compared
    after one rounding to either; where that is not enough, since the record was made of values rounded otherwise than
    those in memory, the model's own files decide.

    Args:
        module: In memory.
        record: As from `content_record`, of this or an earlier release; one without hashes fits any model.
    """
    if record.get("content_hash") is None:
        return True
    tensors = _recorded_tensors(module, record)
    for key, dtype in HASHES.items():
        if record.get(key) == _hash(module, dtype, tensors):
            return True
    return isinstance(module, PreTrainedModel) and _files_hold(module, record)


def _files_hold(model: PreTrainedModel, record: Mapping[str, Any]) -> bool:
    """Whether a model's files hold what a record describes once rounded as it was, and the model is those files'."""
    dtype = getattr(torch, str(record.get("dtype")), None)
    if not isinstance(dtype, torch.dtype) or dtype == model.dtype:
        return False
    stored = _stored_tensors(model, dtype)
    if stored is None or record["content_hash"] != _hash(model, torch.bfloat16, stored):
        return False
    stored = _stored_tensors(model, model.dtype)
    return stored is not None and all(
        type(tensor).__name__ in PACKED_WEIGHTS or torch.equal(stored[name].to(tensor.dtype), tensor.detach().cpu())
        for name, tensor in _recorded_tensors(model, record).items()
    )


def _stored_tensors(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor] | None:
    """A model's tensors anew from its files; None where they are not there or are another model's."""
    origin = origin_of(model)
    try:
        again = type(model).from_pretrained(resolve_model_path(origin.name), revision=origin.revision, dtype=dtype)
    except Exception:  # whatever it is, the files cannot vouch for the model
        return None
    stored = dict(_tensors(again))
    same = all(name in stored and stored[name].shape == t.shape for name, t in _unpacked(model))
    return stored if same else None


def _hash(module: nn.Module, dtype: torch.dtype, values: Mapping[str, Tensor]) -> str:
    """Hash of tensors with the names and kinds of a module's."""
    own = dict(_tensors(module))
    return hash_tensors(_hashed(name, own[name], values[name], dtype) for name in own if name in values)


def _hashed(name: str, own: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[str, Tensor]:
    if type(own).__name__ in PACKED_WEIGHTS:
        state = getattr(own, "quant_state", None)
        kind, shape = getattr(own, "quant_type", "int8"), tuple(own.shape if state is None else state.shape)
        return f"{name} {kind} {shape}", torch.empty(0)
    value = value.detach()
    return name, value.to(dtype) if value.is_floating_point() else value


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    for prefix, owner in module.named_modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if name not in owner._non_persistent_buffers_set:
                yield f"{prefix}.{name}".removeprefix("."), buffer


def _unpacked(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in _tensors(module) if type(tensor).__name__ not in PACKED_WEIGHTS)


def _recorded_tensors(module: nn.Module, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that count in a record; buffers did not before there was a second hash."""
    return dict(_tensors(module) if "content_hash_float16" in record else module.named_parameters())


# -- the base --------------------------------------------------------------------------------------------------------


def base_reference(base: Any) -> dict[str, Any]:
    """Name, revision, class, dtype and content hashes of a base model, and how it is quantised, if it is."""
    quantization, origin = quantization_of(base), origin_of(base)
    return {
        "name_or_path": origin.name,
        "revision": origin.revision,
        "architecture": type(base).__name__,
        "dtype": str(base.dtype).removeprefix("torch."),
        **content_record(base),
        **({} if quantization is None else {"quantization": quantization}),
    }


# -- frozen models whose content is hashed once for several checkpoints -----------------------------------------------


def record_content(model: Any) -> None:
    """Record what a checkpoint says of base and encoders, before their weights are sharded over processes."""
    _recorded[model.base] = base_reference(model.base)
    for encoder in model.source_encoders.values():
        _recorded[encoder] = content_record(encoder)


@contextmanager
def frozen_content(model: Any) -> Iterator[None]:
    """Hash base and encoders once for all checkpoints that are saved inside; a stage changes neither."""
    record_content(model)
    try:
        yield
    finally:
        for module in (model.base, *model.source_encoders.values()):
            del _recorded[module]


def reference_of(base: Any) -> dict[str, Any]:
    """`base_reference` of a base, as it is now or as it was recorded."""
    return dict(_recorded[base]) if base in _recorded else base_reference(base)


def record_of(encoder: Any) -> dict[str, str]:
    """`content_record` of an encoder, as it is now or as it was recorded."""
    return dict(_recorded[encoder]) if encoder in _recorded else content_record(encoder)


# -- places ----------------------------------------------------------------------------------------------------------


def relative_to_checkpoint(reference: Mapping[str, Any], checkpoint: Path, key: str = "name_or_path") -> dict[str, Any]:
    """A reference whose folder, if it names one, is found again after checkpoint and folder have moved together.

    A folder beside the checkpoint, in the checkpoint's own parent folder, is named relative to it; another one by its
    absolute path, and relative to it as well, which is tried first. Ids are left as they are.
    """
    origin = place_of(str(reference.get(key) or ""))
    values = {name: value for name, value in reference.items() if name != RELATIVE_PATH}
    if not Path(origin.name).is_absolute():
        return values | {key: origin.name}
    folder, checkpoint = final_place(Path(origin.name)), final_place(checkpoint)
    relative = _relative(folder, checkpoint)
    if folder.parent == checkpoint.parent and relative is not None:
        return values | {key: relative}
    return values | {key: str(folder)} | ({} if relative is None else {RELATIVE_PATH: relative})


def _relative(folder: Path, checkpoint: Path) -> str | None:
    try:
        return os.path.relpath(folder, checkpoint)
    except ValueError:  # another drive
        return None


def resolve_reference(reference: Mapping[str, Any], checkpoint: Path, key: str = "name_or_path") -> str:
    """The folder or id that a reference means, written by `relative_to_checkpoint`."""
    name = str(reference.get(key) or "")
    relative = reference.get(RELATIVE_PATH)
    if isinstance(relative, str) and _beside(checkpoint, relative).exists():
        return str(_beside(checkpoint, relative))
    return str(_beside(checkpoint, name)) if name.startswith("..") else resolve_model_path(name)


def _beside(checkpoint: Path, relative: str) -> Path:
    """A path from a checkpoint, or, while that is being written, from where it will be."""
    place = (checkpoint / relative).resolve()
    return place if place.exists() else (final_place(checkpoint) / relative).resolve()


# -- encoders --------------------------------------------------------------------------------------------------------


def settled_encoder(reference: Mapping[str, Any], *, takes_revision: bool = False) -> dict[str, Any]:
    """An encoder's reference that means the same from any working directory, and at any later time.

    Args:
        reference: With the encoder's `options`.
        takes_revision: Whether it has the option `revision`, for the commit of a model id; else the reference says it.
    """
    path = _path_of(reference)
    if path is None:
        return dict(reference)
    options = dict(reference["options"])
    origin = place_of(path)
    commit = origin.revision or (cached_commit(path, options.get("revision")) if is_model_id(origin) else None)
    if Path(origin.name).is_absolute() or (takes_revision and origin.revision):
        options["path"] = origin.name
    if commit is None:
        return {**reference, "options": options}
    return (
        {**reference, "options": {**options, "revision": commit}}
        if takes_revision
        else ({**reference, "options": options, "revision": commit})
    )


def encoder_relative_to_checkpoint(reference: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The reference of an encoder whose option `path` is a folder, so that it is found again from the checkpoint."""
    path = _path_of(reference)
    if path is None or not Path(path).is_absolute():
        return dict(reference)
    placed = relative_to_checkpoint({**reference, "path": path}, checkpoint, "path")
    place = placed.pop("path")
    return {**placed, "options": {**reference["options"], "path": place}}


def resolve_encoder(reference: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Undo `encoder_relative_to_checkpoint`."""
    path = _path_of(reference)
    if path is None or not (path.startswith("..") or RELATIVE_PATH in reference):
        return dict(reference)
    place = resolve_reference({**reference, "path": path}, checkpoint, "path")
    values = {key: value for key, value in reference.items() if key != RELATIVE_PATH}
    return {**values, "options": {**reference["options"], "path": place}}


def _path_of(reference: Mapping[str, Any]) -> str | None:
    options = reference.get("options")
    path = options.get("path") if isinstance(options, Mapping) else None
    return path if isinstance(path, str) else None
