"""Where models and caches are: built-in models by name, everything else where the user says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError, nearest_name, wrong_type
from adaptkit.files.hub import hub_refusal, is_file_cached, is_hub_id, parse_hub_name
from adaptkit.files.writing import STAGING

WORLD_PREFIX = "world:"
CACHE_VARIABLE = "ADAPTKIT_CACHE"

_WORLD_MODELS = Path(__file__).parents[1] / "world" / "models"


def as_path(what: str, value: Any) -> Path:
    """A path as a `Path`.

    Raises:
        ModelError: The value is not a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ModelError(wrong_type(what, "a path or a hub id", value))
    return Path(value)


def nearest_folder(folder: Path) -> str:
    """The folder that lies where one does not and is spelt most like it, as a question in brackets; else nothing."""
    beside = [path.name for path in folder.parent.glob("*/")] if folder.parent.is_dir() else []
    nearest = nearest_name(folder.name, beside)
    return f" (did you mean {str(folder.with_name(nearest))!r}?)" if nearest and folder.name else ""


def resolve_model_path(path: str) -> str:
    """Turn `world:NAME` into the folder of a built-in model; leave other paths and hub ids as they are."""
    if path.startswith(WORLD_PREFIX):
        return str(_WORLD_MODELS / path.removeprefix(WORLD_PREFIX))
    return path


def portable_model_path(path: str) -> str:
    """Undo `resolve_model_path`, so that a checkpoint names a built-in model alike on every machine."""
    if path and Path(path).resolve().parent == _WORLD_MODELS.resolve():
        return WORLD_PREFIX + Path(path).name
    return path


def final_place(folder: Path) -> Path:
    """The absolute path that a folder has once it is renamed into place."""
    folder = folder.resolve()
    return Path(*(part for part in folder.parts if not part.startswith(STAGING)))


def missing_model(path: str, revision: str | None = None) -> str | None:
    """Say what is not on this machine of a model named by folder, built-in name or hub id; None where it is there."""
    resolved = resolve_model_path(path)
    if (Path(resolved) / "config.json").is_file():
        return None
    if path.startswith(WORLD_PREFIX):
        return f"{path!r} is not a built-in model (`adaptkit doctor` lists them)"
    if Path(resolved).is_dir():
        return f"the folder {resolved!r} has no config.json, so it is not a model checkpoint"
    if not is_hub_id(resolved) or "/" not in resolved:
        named = parse_hub_name(resolved)
        hint = "" if named is None else f"; the revision of {named[0]!r} stands beside it, as `revision`"
        return f"there is no folder {resolved!r}{hint}"
    if is_file_cached(resolved, "config.json", revision) or (refusal := hub_refusal(resolved, revision)) is None:
        return None
    return (
        f"{resolved!r} is neither a folder nor in the Hugging Face cache of this machine, and {refusal}. Or name a "
        f"folder that holds it: `hf download {resolved} --local-dir FOLDER`, run where there is a network, makes one"
    )


def cache_dir() -> Path:
    """Folder for what can be made again: generated data and encoder features (`ADAPTKIT_CACHE` moves it)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "adaptkit"
    return Path(os.environ.get(CACHE_VARIABLE) or default).expanduser()
