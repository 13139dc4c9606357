"""Finding workflows on disk: in their own folder, or in a run directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.loading import read_yaml
from adaptkit.files.writing import STAGING
from adaptkit.model.checkpoint import load, locate
from adaptkit.model.processor import load_processor

FINAL_FOLDER = "final"
_WHAT = "A checkpoint is a workflow's folder or hub id, or a run directory in which `adaptkit train` has finished."


def located(checkpoint: Path) -> Path:
    """The folder of a checkpoint, which may be given by the hub id of a workflow or of a run directory.

    Raises:
        ModelError: There is no such folder, and an id cannot be downloaded.
    """
    folder = locate(checkpoint, {})[0] if "/" in str(checkpoint) else checkpoint
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise ModelError(f"{checkpoint} {what}. {_WHAT}")
    return folder


def workflow_folders(checkpoint: Path, workflow: str | None = None) -> dict[str, Path]:
    """Workflows that a checkpoint holds, by name: those of a run directory in the recipe's order, or the one itself.

    Args:
        workflow: The only one that is asked for.

    Raises:
        ModelError: There is none, or none of that name.
    """
    found = _all_folders(located(checkpoint))
    if workflow is None:
        return found
    if workflow not in found:
        raise ModelError(f"{checkpoint}: {unknown_name('workflow', workflow, found)}")
    return {workflow: found[workflow]}


def _all_folders(checkpoint: Path) -> dict[str, Path]:
    if (checkpoint / "config.json").is_file():
        return {checkpoint.name: checkpoint}
    final = checkpoint / FINAL_FOLDER
    folders = {path.name: path for path in sorted(final.glob("*/")) if not path.name.startswith(STAGING)}
    found = {name: path for name, path in folders.items() if (path / "config.json").is_file()}
    if not found and folders:
        raise ModelError(f"{next(iter(folders.values())) / 'config.json'} is missing, or is not a file. {_WHAT}")
    if not found:
        raise ModelError(f"{checkpoint} holds no finished workflow. {_WHAT}")
    return {name: found[name] for name in sorted(found, key=lambda n: (_order(checkpoint, n), n))}


def _order(run_directory: Path, name: str) -> int:
    """Place of a workflow in the run's recipe; those that it does not name come last."""
    recipe = run_directory / "recipe.yaml"
    names = list(read_yaml(recipe).get("workflows") or ()) if recipe.exists() else []
    return names.index(name) if name in names else len(names)


def find_workflow(checkpoint: Path, workflow: str | None = None) -> Path:
    """The folder of a workflow: the one asked for, or the only or first one."""
    return next(iter(workflow_folders(checkpoint, workflow).values()))


def load_models(folders: Mapping[str, Path], *, trust_remote_code: bool = False) -> Iterator[tuple[str, Any]]:
    """Load workflows one after the other, all over the base and the encoders of the first."""
    base, encoders = None, None
    for name, folder in folders.items():
        model = load(folder, base=base, encoders=encoders, trust_remote_code=trust_remote_code)
        base, encoders = model.base, model.source_encoders
        yield name, model


def load_workflow(
    checkpoint: Path, workflow: str | None = None, base: Any = None, *, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Model, on the accelerator where there is one, and processor of a workflow; code of its own runs only if told."""
    import torch

    folder = find_workflow(checkpoint, workflow)
    model = load(folder, base=base, trust_remote_code=trust_remote_code)
    if base is None and torch.cuda.is_available():
        model = model.to("cuda")
    return model, load_processor(folder, trust_remote_code=trust_remote_code)
