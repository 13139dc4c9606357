"""Finding workflows on disk: in their own folder, or in a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import CONFIG_NAME

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.hub import is_hub_id
from adaptkit.files.loading import cause, read_yaml
from adaptkit.files.paths import as_path
from adaptkit.files.writing import STAGING

FINAL_FOLDER = "final"
HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
"""Arguments that say where on the hub a checkpoint is, and how it is downloaded."""

_WHAT = "A checkpoint is a workflow's folder or hub id, or a run directory in which `adaptkit train` has finished."


def locate(directory: str | Path, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of a checkpoint that may be given by hub id, and the options that are left for its base.

    Raises:
        ModelError: An id cannot be downloaded.
    """
    options = {name: value for name, value in options.items() if value is not None or name not in HUB_OPTIONS}
    subfolder = options.pop("subfolder", None) or ""
    folder = as_path("directory", directory).expanduser()
    if folder.exists() or not is_hub_id(str(directory)):
        return folder / subfolder, options
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    options.pop("revision", None)
    try:
        folder = Path(snapshot_download(str(directory), **hub))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ModelError(
            f"{directory} is not a folder here, and cannot be downloaded from the Hugging Face hub ({cause(error)})."
        ) from error
    return folder / subfolder, options


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
    found = _all_folders(checkpoint)
    if workflow is None:
        return found
    if workflow not in found:
        raise ModelError(f"{checkpoint}: {unknown_name('workflow', workflow, found)}")
    return {workflow: found[workflow]}


def _all_folders(checkpoint: Path) -> dict[str, Path]:
    name = checkpoint.absolute().name
    checkpoint = located(checkpoint)
    if (checkpoint / CONFIG_NAME).is_file():
        return {name: checkpoint}
    final = checkpoint / FINAL_FOLDER
    folders = {path.name: path for path in sorted(final.glob("*/")) if not path.name.startswith(STAGING)}
    found = {name: path for name, path in folders.items() if (path / CONFIG_NAME).is_file()}
    if not found and folders:
        raise ModelError(f"{next(iter(folders.values())) / 'config.json'} is missing, or is not a file. {_WHAT}")
    if not found:
        raise ModelError(f"{checkpoint} holds no finished workflow. {_WHAT}")
    return {name: found[name] for name in sorted(found, key=lambda n: (_order(checkpoint, n), n))}


def only_workflow(folder: Path, given: str | Path) -> Path:
    """A workflow's folder: this one, or where it is a run directory, that of the run's only workflow.

    Args:
        folder: Where the checkpoint lies.
        given: How the user named it, for messages.

    Raises:
        ModelError: The run has several workflows, or none that is finished.
    """
    if (folder / CONFIG_NAME).exists() or not (folder / FINAL_FOLDER).is_dir():
        return folder
    found = workflow_folders(folder)
    if len(found) == 1:
        return next(iter(found.values()))
    is_here = Path(given).expanduser().exists()
    calls = [
        f'adaptkit.load("{path}")' if is_here else f'adaptkit.load("{given}", subfolder="{FINAL_FOLDER}/{name}")'
        for name, path in found.items()
    ]
    raise ModelError(
        f"{given} is a run with the workflows {' and '.join(found)}. Load one of them: {' or '.join(calls)}; or open "
        f'all of them over one base: adaptkit.Session.open("{given}").'
    )


def _order(run_directory: Path, name: str) -> int:
    """Place of a workflow in the run's recipe; those that it does not name come last."""
    recipe = run_directory / "recipe.yaml"
    names = list(read_yaml(recipe).get("workflows") or ()) if recipe.exists() else []
    return names.index(name) if name in names else len(names)


def find_workflow(checkpoint: Path, workflow: str | None = None) -> Path:
    """The folder of a workflow: the one asked for, or the only or first one."""
    return next(iter(workflow_folders(checkpoint, workflow).values()))
