"""Finding workflows on disk: in their own folder, or in a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.hub import HUB_OPTIONS, download, parse_hub_name, snapshot_origin
from adaptkit.files.loading import read_yaml
from adaptkit.files.paths import as_path, nearest_folder
from adaptkit.files.writing import STAGING

FINAL_FOLDER = "final"
_WHAT = (
    "A checkpoint is a workflow's folder, a run directory in which `adaptkit train` has finished, or the hub id of "
    "either: OWNER/NAME or OWNER/NAME@REVISION."
)


def locate(directory: str | Path, options: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of a checkpoint that may be given by hub id, and the options that are left for its base.

    A folder is preferred to an id that is spelt like it.

    Raises:
        ModelError: An id cannot be downloaded.
    """
    options = {name: value for name, value in options.items() if value is not None or name not in HUB_OPTIONS}
    subfolder = options.pop("subfolder", None) or ""
    folder = as_path("directory", directory).expanduser()
    named = None if folder.exists() else parse_hub_name(str(directory))
    if named is None:
        return folder / subfolder, options
    model_id, revision = named
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    given = options.pop("revision", None)
    if revision is not None and given not in (None, revision):
        raise ModelError(f"{directory} and revision={given!r} name two revisions. Give one.")
    try:
        return download(model_id, {**hub, "revision": revision or given}) / subfolder, options
    except ModelError as error:
        raise ModelError(f"{directory} is not a folder here{nearest_folder(folder)}, and {error}") from error


def located(checkpoint: Path, options: Mapping[str, Any] | None = None) -> Path:
    """The folder of a checkpoint, which may be given by the hub id of a workflow or of a run directory.

    Args:
        options: Where on the hub it is, and how it is downloaded; see `HUB_OPTIONS`.

    Raises:
        ModelError: There is no such folder, an id cannot be downloaded, or a revision is given with a folder.
    """
    folder, left = locate(checkpoint, options or {})
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else f"does not exist{nearest_folder(folder)}"
        raise ModelError(f"{checkpoint} {what}. {_WHAT}")
    if "revision" in left:
        raise ModelError(f"{checkpoint} is a folder, which has no revision={left['revision']!r}. Remove it.")
    return folder


def workflow_folders(
    checkpoint: Path, workflow: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Workflows that a checkpoint holds, by name: those of a run directory in the recipe's order, or the one itself.

    Args:
        workflow: The only one that is asked for.
        options: As in `located`.

    Raises:
        ModelError: There is none, or none of that name.
    """
    found = _all_folders(checkpoint, options)
    if workflow is None:
        return found
    if workflow not in found:
        raise ModelError(f"{checkpoint}: {unknown_name('workflow', workflow, found)}")
    return {workflow: found[workflow]}


def _all_folders(given: Path, options: Mapping[str, Any] | None) -> dict[str, Path]:
    checkpoint = located(given, options)
    if (checkpoint / CONFIG_NAME).is_file():
        return {checkpoint_name(given): checkpoint}
    final = checkpoint / FINAL_FOLDER
    folders = {path.name: path for path in sorted(final.glob("*/")) if not path.name.startswith(STAGING)}
    found = {name: path for name, path in folders.items() if (path / CONFIG_NAME).is_file()}
    if not found and folders:
        raise ModelError(f"{next(iter(folders.values())) / 'config.json'} is missing, or is not a file. {_WHAT}")
    if not found:
        raise ModelError(f"{checkpoint} holds no finished workflow. {_WHAT}")
    return {name: found[name] for name in sorted(found, key=lambda n: (_order(checkpoint, n), n))}


def checkpoint_name(checkpoint: Path) -> str:
    """What to call a checkpoint: as its folder or its repository on the hub is called."""
    if not checkpoint.exists() and (named := parse_hub_name(str(checkpoint))) is not None:
        return named[0].rpartition("/")[2]
    origin = snapshot_origin(checkpoint)
    return checkpoint.absolute().name if origin is None else origin[0].rpartition("/")[2]


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
