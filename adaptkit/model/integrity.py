"""Frozen models that are those of training, and tensors on disk that are what was written, and finite."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError, first_few
from adaptkit.files.hashing import hash_tensors
from adaptkit.files.loading import reading
from adaptkit.files.paths import resolve_model_path
from adaptkit.model.reference import origin_of
from adaptkit.surgery.quantization import PACKED_WEIGHTS, quantization_of

CHECKSUM = "adaptkit_sha256"
"""Key of a file's metadata under which the hash of its tensors stands; files of others and of before have none."""

HASHES = {"content_hash": torch.bfloat16, "content_hash_float16": torch.float16}
"""Keys of a record of a frozen model's content, and to what its values are rounded for each."""

_recorded: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
"""What a checkpoint says of frozen models that several checkpoints are saved with, and which are hashed once."""

_finite: weakref.WeakSet[nn.Module] = weakref.WeakSet()


# -- frozen models that a checkpoint was trained on -------------------------------------------------------------------


def content_record(module: nn.Module) -> dict[str, str]:
    """Hashes by which a frozen model is recognised in whichever dtype it is loaded."""
    if module in _recorded:
        return dict(_recorded[module])
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
    own = ((name, t) for name, t in _tensors(model) if type(t).__name__ not in PACKED_WEIGHTS)
    return stored if all(name in stored and stored[name].shape == t.shape for name, t in own) else None


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


def _recorded_tensors(module: nn.Module, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that count in a record; buffers did not before there was a second hash."""
    return dict(_tensors(module) if "content_hash_float16" in record else module.named_parameters())


def base_reference(base: Any) -> dict[str, Any]:
    """Name, revision, class, dtype and content hashes of a base model, and how it is quantised, if it is."""
    if base in _recorded:
        return dict(_recorded[base])
    quantization, origin = quantization_of(base), origin_of(base)
    return {
        "name_or_path": origin.name,
        "revision": origin.revision,
        "architecture": type(base).__name__,
        "dtype": str(base.dtype).removeprefix("torch."),
        **content_record(base),
        **({} if quantization is None else {"quantization": quantization}),
    }


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


# -- files and values -------------------------------------------------------------------------------------------------


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file with a checksum; the same tensors give the same bytes."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # as the umask has it; safetensors 0.8 leaves a file that only its owner can read
    save_file(whole, path, {"format": "pt", CHECKSUM: hash_tensors(whole.items())})
    path.chmod(mode)
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata, which safetensors writes in an order that varies."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, compared with its checksum where it has one.

    Raises:
        ModelError: It is missing, damaged, or holds non-finite values.
    """
    if not path.exists():
        raise ModelError(f"{path} is missing: the checkpoint is incomplete.")
    with reading(path, advice="Use another checkpoint, or save it again."), safe_open(path, framework="pt") as file:
        expected = (file.metadata() or {}).get(CHECKSUM)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if expected is not None and hash_tensors(tensors.items()) != expected:
        raise ModelError(
            f"{path} is damaged: its tensors are not those that were written (checksum). Use another checkpoint, or "
            "copy the file again."
        )
    refuse_non_finite(tensors.items(), str(path))
    return tensors


def refuse_non_finite(named_tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Make sure that all values are numbers: a model with other values silently computes nothing.

    Raises:
        ModelError: Some are not; the message names their tensors.
    """
    names = [name for name, tensor in named_tensors if not is_finite(tensor)]
    if names:
        raise ModelError(
            f"{where}: {first_few(names, 3)} hold(s) non-finite values (NaN or infinity), so "
            "nothing that is computed with them means anything. Use an earlier checkpoint, or fetch the file again."
        )


def refuse_non_finite_model(model: nn.Module, where: str) -> None:
    """As `refuse_non_finite` of a frozen model, whose tensors are read once however many workflows share it."""
    if model not in _finite:
        refuse_non_finite(model.named_parameters(), where)
        _finite.add(model)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of this process's part of a tensor are numbers; what is not loaded counts as such."""
    local = getattr(tensor, "_local_tensor", tensor).detach()
    if local.is_meta or not local.numel() or not (local.is_floating_point() or local.is_complex()):
        return True
    if local.is_complex():
        local = torch.view_as_real(local)
    if local.itemsize == 1:  # 8-bit floats have no order of their own
        local = local.to(torch.float32)
    return bool(torch.isfinite(torch.stack(torch.aminmax(local))).all())  # in one pass, without a copy
