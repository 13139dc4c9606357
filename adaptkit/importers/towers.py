"""The vision tower of the authors' checkpoint: where it is, or how to write it out of the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.files.loading import read_json
from adaptkit.files.paths import missing_model, portable_model_path, resolve_model_path
from adaptkit.importers.streaming import TensorSource, write_checkpoint

ENCODER_FOLDER = "encoder"
PREFIX = "model.vision_tower.vision_tower."
_PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Tower:
    """A vision tower.

    Attributes:
        path: Folder or id by which workflows name it.
        config: Its config file, where it is to be written to `path` from the checkpoint's tensors.
    """

    path: str
    config: Path | None = None


def find_tower(
    values: Mapping[str, Any], tensors: TensorSource, source: Path, output: Path, given: str | None
) -> Tower:
    """Look where the user or the config says; as the authors' loader does, prefer that to tensors in the checkpoint.

    Args:
        values: The checkpoint's config.
        tensors: The checkpoint's tensors.
        source: Its folder, against which `mm_vision_tower` may be relative.
        output: Where a tower found in the checkpoint is to be written.
        given: Folder or id from the user.

    Raises:
        ModelError: There is no tower at that place, and none in the checkpoint that its config would fit.
    """
    name = given or values.get("mm_vision_tower") or values.get("vision_tower")
    if not name:
        raise ModelError(f"{source}: config.json names no vision tower (mm_vision_tower). Name it: --encoder.")
    place = _place(name, source, beside=given is None)
    stored = tensors.names(PREFIX)
    if place is None:
        reason = missing_model(name)
        if reason is None:
            return Tower(name)
    elif any(place.glob("*.safetensors")):
        return Tower(portable_model_path(str(place.resolve())))
    else:
        config = place / "config.json" if place.is_dir() else place
        if stored and config.is_file():
            return Tower(str((output / ENCODER_FOLDER).resolve()), config)
        reason = f"{place} holds no *.safetensors, and the checkpoint no tensors of the tower"
    inside = " The checkpoint holds its tensors: the folder of its config.json is enough." if stored else ""
    raise ModelError(f"the vision tower {name!r} is not here: {reason}. Name its folder or id: --encoder.{inside}")


def _place(name: str, source: Path, *, beside: bool) -> Path | None:
    """The file or folder that a name means: beside the checkpoint, or as it stands; None for an id."""
    places = [source / name] if beside else []
    places.append(Path(resolve_model_path(name)).expanduser())
    return next((place for place in places if place.exists()), None)


def write_tower(tower: Tower, tensors: TensorSource, max_shard_bytes: int) -> None:
    """Write a tower whose tensors are in the checkpoint; nothing to do for one that lies elsewhere."""
    if tower.config is None:
        return
    folder = Path(tower.path)
    read_json(tower.config)
    names = {name.removeprefix(PREFIX): name for name in tensors.names(PREFIX) if not name.endswith("position_ids")}
    write_checkpoint(tensors, names, folder, max_shard_bytes=max_shard_bytes)
    shutil.copyfile(tower.config, folder / "config.json")
    for place in (tower.config.parent, tensors.folder):
        if (place / _PREPROCESSOR).is_file():
            shutil.copyfile(place / _PREPROCESSOR, folder / _PREPROCESSOR)
            return
