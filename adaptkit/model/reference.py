"""References: where a frozen model was loaded from, and how a checkpoint names that place."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from adaptkit.files.hub import cached_commit, cached_snapshots, snapshot_origin
from adaptkit.files.paths import WORLD_PREFIX, final_place, portable_model_path, resolve_model_path
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.surgery.quantization import PACKED_WEIGHTS

RELATIVE_PATH = "relative_path"
"""Key of a reference to a folder elsewhere: where that lies as seen from the checkpoint."""


# -- where a model was loaded from ------------------------------------------------------------------------------------


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


# -- the place in a checkpoint ----------------------------------------------------------------------------------------


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
    try:
        relative = os.path.relpath(folder, checkpoint)
    except ValueError:  # another drive
        return values | {key: str(folder)}
    if folder.parent == checkpoint.parent:
        return values | {key: relative}
    return values | {key: str(folder), RELATIVE_PATH: relative}


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


# -- encoders ---------------------------------------------------------------------------------------------------------


def settled(reference: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's reference that means the same from any working directory, and at any later time.

    A folder is absolute. The commit of a model id is the option `revision` where the encoder has one, else a key of the
    reference.
    """
    path = _path_of(reference)
    if path is None:
        return dict(reference)
    takes_revision = "revision" in get_plugin_manager().get("encoder", reference["name"]).options.model_fields
    origin, options = place_of(path), dict(reference["options"])
    commit = origin.revision or (cached_commit(path, options.get("revision")) if is_model_id(origin) else None)
    if Path(origin.name).is_absolute() or (takes_revision and origin.revision):
        options["path"] = origin.name
    found = {**reference, "options": options}
    if commit is not None:
        (options if takes_revision else found)["revision"] = commit
    return found


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
