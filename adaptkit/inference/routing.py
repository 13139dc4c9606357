"""Which workflow answers a prompt, by what it takes; configurations say so before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, unknown_name
from adaptkit.model.checkpoint import load_config
from adaptkit.model.run_folders import workflow_folders

TEXT = "text"
"""Name of the text workflow, which is the base."""

AUTO = "auto"
"""Name by which the messages decide on the workflow."""


def named_folders(checkpoints: Sequence[str | Path], hub_options: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """Folders of all workflows of some checkpoints, each by a name of its own.

    Args:
        hub_options: Where checkpoints given by hub id are, and how they are downloaded; see `HUB_OPTIONS`.

    Raises:
        ModelError: A checkpoint holds no workflow.
    """
    folders: dict[str, Path] = {}
    for checkpoint in checkpoints:
        for name, folder in workflow_folders(Path(checkpoint), options=hub_options).items():
            folders[_free_name(name, folders)] = folder
    return folders


def _free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken: folders of several runs may be called alike."""
    number = 2
    found = name if name not in (TEXT, AUTO) else f"{name}-workflow"
    while found in taken:
        found = f"{name}-{number}"
        number += 1
    return found


def saved_modalities(folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """Modalities that the base and workflows on disk take, as `Session.modalities` says of loaded ones."""
    return {TEXT: [], **{name: list(load_config(folder).modalities) for name, folder in folders.items()}}


def used_modalities(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """Modalities of the media in messages whose contents are lists of parts."""
    parts = [part for message in messages for part in message["content"]]
    kinds = [part.get("type") for part in parts if isinstance(part, Mapping)]
    return {kind for kind in kinds if isinstance(kind, str) and kind != "text"}


def choose_workflow(
    used: Collection[str], modalities: Mapping[str, Sequence[str]], default: str, workflow: str = AUTO
) -> str:
    """Which workflow answers: without media the base; with media the default one of those that take them all.

    Args:
        used: Modalities of the prompt's media.
        modalities: Which of them each workflow takes.
        default: The workflow that takes media where several could.
        workflow: By name, or `auto`.

    Raises:
        DataError: No workflow takes these media, the one that is named does not, or there is none of that name.
    """
    known = {name for takes in modalities.values() for name in takes}
    if workflow not in (AUTO, *modalities):
        raise DataError(unknown_name("workflow", workflow, modalities))
    for name in sorted(set(used) - known):
        raise DataError(unknown_name("modality of these workflows", name, known))
    takers = [name for name, takes in modalities.items() if set(used) <= set(takes)]
    if workflow == AUTO:
        if not used:
            return TEXT
        if not takers:
            have = "; ".join(f"{name}: {', '.join(takes)}" for name, takes in modalities.items() if takes)
            raise DataError(f"no workflow takes {' and '.join(sorted(used))} together. There are {have or 'none'}.")
        return default if default in takers else takers[0]
    if missing := sorted(set(used) - set(modalities[workflow])):
        hint = f" Ask {' or '.join(takers)}." if takers else ""
        raise DataError(f"workflow {workflow!r} takes no {', '.join(missing)}.{hint}")
    return workflow
