"""Tensors on disk that are what was written, and hold numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from weakref import WeakSet

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.files.hashing import hash_tensors
from adaptkit.files.loading import reading

CHECKSUM = "adaptkit_sha256"
"""Key of a file's metadata under which the hash of its tensors stands; files of others and of before have none."""

_NUM_NAMED = 3


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file with a checksum; the same tensors give the same bytes."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, {"format": "pt", CHECKSUM: hash_tensors(whole.items())})
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order: safetensors writes several keys in one that differs from time to time."""
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
        more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
        raise ModelError(
            f"{where}: {', '.join(names[:_NUM_NAMED])}{more} hold(s) non-finite values (NaN or infinity), so "
            "nothing that is computed with them means anything. Use an earlier checkpoint, or fetch the file again."
        )


_finite: WeakSet[nn.Module] = WeakSet()


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
