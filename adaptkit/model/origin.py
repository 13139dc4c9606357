"""Where a frozen model was loaded from: a folder, or a commit of the hub."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from adaptkit.files.hub import cached_commit, cached_snapshots, snapshot_origin
from adaptkit.files.paths import WORLD_PREFIX, portable_model_path
from adaptkit.surgery.quantization import PACKED_WEIGHTS


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from.

    Attributes:
        name: An absolute folder, the name of a built-in model, or a model id; empty where nothing is known.
        revision: Commit of a model id, where it is known.
    """

    name: str
    revision: str | None = None


_origins: weakref.WeakKeyDictionary[Any, tuple[str, Origin]] = weakref.WeakKeyDictionary()


def origin_of(model: Any) -> Origin:
    """Where a model was loaded from, as it was found when this was first asked.

    Later a relative path may mean another folder, and a branch another commit.
    """
    name = str(getattr(model, "name_or_path", "") or "")
    known = _origins.get(model)
    if known is None or known[0] != name:
        known = _origins[model] = (name, _find(model, name))
    return known[1]


def remember_origin(model: Any, revision: str | None, cache_dir: str | Path | None = None) -> None:
    """Take down where a model was just loaded from, in words of whoever loaded it."""
    name = str(getattr(model, "name_or_path", "") or "")
    found = place_of(name)
    if found.name == name:
        found = Origin(name, cached_commit(name, revision, cache_dir) or found.revision)
    _origins[model] = (name, found)


def place_of(name: str) -> Origin:
    """What a path or id means at present; of an id without its commit."""
    portable = portable_model_path(name)
    folder = Path(portable).expanduser()
    if not name or portable.startswith(WORLD_PREFIX) or not folder.exists():
        return Origin(portable)
    folder = folder.resolve()
    snapshot = snapshot_origin(folder)
    return Origin(str(folder)) if snapshot is None else Origin(*snapshot)


def is_model_id(origin: Origin) -> bool:
    """Whether a model is one of the hub's."""
    return bool(origin.name) and not origin.name.startswith(WORLD_PREFIX) and not Path(origin.name).is_absolute()


def _find(model: Any, name: str) -> Origin:
    found = place_of(name)
    if not is_model_id(found) or found.revision is not None:
        return found
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)  # before transformers 5.23
    return Origin(found.name, commit or _commit_by_content(model, found.name))


def _commit_by_content(model: nn.Module, model_id: str) -> str | None:
    """The commit in the cache that a model's weights are from; that of the main branch where several have the same."""
    snapshots = cached_snapshots(model_id)
    files = {tuple(sorted(str(file.resolve()) for file in path.glob("*.safetensors"))) for path in snapshots}
    if len(files) > 1:
        snapshots = [path for path in snapshots if _holds(path, model)]
    return snapshots[0].name if snapshots else None


def _holds(snapshot: Path, model: nn.Module) -> bool:
    """Whether a folder stores a model's weights, as far as both have the same names for them."""
    parameters = {n: p for n, p in model.named_parameters() if type(p).__name__ not in PACKED_WEIGHTS}
    compared = False
    for file in sorted(snapshot.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in parameters.keys() & set(stored.keys()):
                    parameter, value = parameters[name].detach().cpu(), stored.get_tensor(name)
                    if parameter.shape != value.shape or not torch.equal(value.to(parameter.dtype), parameter):
                        return False
                    compared = True
        except (OSError, SafetensorError):
            return False
    return compared
