"""Where a workflow is not written: over what it was built on, or over another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.files.hub import cached_snapshots
from adaptkit.files.paths import resolve_model_path
from adaptkit.model.config import MODEL_TYPE
from adaptkit.model.encoders import folders_of
from adaptkit.model.reference import is_model_id, origin_of

TENSORS_FILE = "model.safetensors"


def refuse_overwriting(directory: Path, model: Any = None) -> None:
    """Refuse to write a workflow over what it was built on, or over another model.

    Raises:
        ModelError: The folder is that of the base or of an encoder, holds a model that is not a workflow, or is a file.
    """
    named, directory = directory, directory.resolve()  # `..` counts, too, after a folder that is yet to be made
    if directory.exists() and not directory.is_dir():
        raise ModelError(f"{named} is a file; a checkpoint is a folder. Name another place.")
    for what, folder in _sources(model):
        if folder.exists() and directory.exists() and folder.samefile(directory):
            raise ModelError(f"{named} is the folder of {what}, which would be overwritten. Name another folder.")
    found = model_type_in(directory / "config.json")
    if found not in (None, MODEL_TYPE):
        raise ModelError(
            f"{named} holds a model that is not a workflow ({found}), which would be overwritten. Name another folder."
        )
    for path in weight_files(directory) if found is None else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:  # a link loses no content
            raise ModelError(
                f"{named} holds weights of another model ({path.name}, without a config.json of a workflow), which "
                "would be overwritten. Name another folder."
            )


def weight_files(directory: Path) -> list[Path]:
    """Files in a folder with names that the tensors of a workflow may get."""
    return [*directory.glob("model-*-of-*.safetensors"), *directory.glob(f"{TENSORS_FILE}*")]


def _sources(model: Any) -> list[tuple[str, Path]]:
    """Folders that a workflow's frozen models were loaded from."""
    if model is None:
        return []
    origin = origin_of(model.base)
    folders = cached_snapshots(origin.name) if is_model_id(origin) else []
    if origin.name and not is_model_id(origin):
        folders = [Path(resolve_model_path(origin.name))]
    found = [("the base", folder) for folder in folders]
    for name, encoder in model.source_encoders.items():
        reference = model.config.modalities[name]["encoder"]
        found += [(f"the encoder of {name!r}", folder) for folder in folders_of(encoder, reference)]
    return found


def model_type_in(path: Path) -> str | None:
    """What a config.json says that it describes; None where there is none, or none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(values.get("model_type") or "of unknown type") if isinstance(values, dict) else None
