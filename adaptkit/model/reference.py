"""References: how a checkpoint names the frozen models it was trained on, and recognises them again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.hashing import hash_tensors
from adaptkit.paths import portable_model_path, resolve_model_path
from adaptkit.surgery.quantization import PACKED_WEIGHTS, quantization_of


def content_hash(module: nn.Module) -> str:
    """Hash of all parameters of a frozen model, by name, the same in every dtype it was loaded in.

    Values are compared as bfloat16, so that a base trained on in float32 and served in bfloat16 is the same base. Of
    packed weights only kind and shape count, since devices pack them with other roundings; what is not packed
    (embedding, norms, head) tells bases apart.
    """
    return hash_tensors(_hashed(name, p.detach(), p) for name, p in module.named_parameters())


def _hashed(name: str, value: Tensor, parameter: Tensor) -> tuple[str, Tensor]:
    if type(parameter).__name__ in PACKED_WEIGHTS:
        state = getattr(parameter, "quant_state", None)
        kind, shape = getattr(parameter, "quant_type", "int8"), tuple(value.shape if state is None else state.shape)
        return f"{name} {kind} {shape}", torch.empty(0)
    return name, value.to(torch.bfloat16) if value.is_floating_point() else value


def base_reference(base: Any) -> dict[str, Any]:
    """Name, revision, class, dtype and content hash of a base model, and how it is quantised, if it is."""
    quantization = quantization_of(base)
    return {
        "name_or_path": str(getattr(base, "name_or_path", "") or ""),
        "revision": getattr(base.config, "_commit_hash", None),
        "architecture": type(base).__name__,
        "dtype": str(base.dtype).removeprefix("torch."),
        "content_hash": content_hash(base),
        **({} if quantization is None else {"quantization": quantization}),
    }


def relative_to_checkpoint(name_or_path: str, checkpoint: Path) -> str:
    """Write a base that lies beside the checkpoint as a relative path; leave ids and far paths as they are.

    "Beside" means in the checkpoint's own parent folder, as the importers write it.
    """
    name_or_path = portable_model_path(name_or_path)
    path = Path(name_or_path)
    if not name_or_path or not path.is_dir():
        return name_or_path
    if path.resolve().parent == checkpoint.resolve().parent:
        return os.path.relpath(path.resolve(), checkpoint.resolve())
    return str(path.resolve())


def resolve_reference(name_or_path: str, checkpoint: Path) -> str:
    """Undo `relative_to_checkpoint`."""
    if name_or_path.startswith(".."):
        return str((checkpoint / name_or_path).resolve())
    return resolve_model_path(name_or_path)


def encoder_relative_to_checkpoint(reference: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The reference of an encoder whose option `path` is a folder beside the checkpoint, made relative to it."""
    return _with_path(reference, lambda path: relative_to_checkpoint(path, checkpoint) if _is_folder(path) else path)


def resolve_encoder(reference: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Undo `encoder_relative_to_checkpoint`."""
    return _with_path(reference, lambda path: resolve_reference(path, checkpoint) if path.startswith("..") else path)


def _is_folder(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).is_dir()


def _with_path(reference: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    options = reference.get("options")
    if not isinstance(options, Mapping) or not isinstance(options.get("path"), str):
        return dict(reference)
    return {**reference, "options": {**options, "path": change(options["path"])}}
