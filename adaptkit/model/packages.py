"""Which packages a workflow needs: recorded when it is saved, asked for when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptkit.errors import PluginError
from adaptkit.files.loading import is_distribution_name
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.modality import read_modalities
from adaptkit.plugin_manager import get_plugin_manager


def packages_of(config: AdaptkitConfig) -> dict[str, str]:
    """`distribution version` of each component that a workflow names, by `kind name`."""
    manager = get_plugin_manager()
    return {f"{kind} {name}": manager.get(kind, name).package for kind, name in _used(config) if _has(kind, name)}


def require_packages(config: AdaptkitConfig, directory: Path) -> None:
    """Say at once what has to be installed for a checkpoint.

    Raises:
        PluginError: A component is not there; the message names the package it came from.
    """
    missing = {
        _distribution(package): f"the {kind} {name!r}"
        for kind, name in _used(config)
        if not _has(kind, name) and (package := config.packages.get(f"{kind} {name}"))
    }
    if missing:
        problems = {package: get_plugin_manager().problem_of(package) for package in missing}
        what = ", ".join(f"{missing[package]} of {_shown(package)}" for package in missing)
        lacking = [package for package, problem in problems.items() if problem is None]
        reasons = [f"{problem}." for problem in problems.values() if problem is not None]
        if lacking:
            names = " ".join(package for package in lacking if is_distribution_name(package))
            reasons.append(
                "Not installed here" + (f": if you trust what it names, `pip install {names}`." if names else ".")
            )
        raise PluginError(
            f"{directory}: this workflow was made with {what}. {' '.join(reasons)} `adaptkit plugins` lists what is "
            "installed."
        )


def _shown(package: str) -> str:
    """A package's name as a checkpoint has it, where it is one; anything may stand there."""
    return package if is_distribution_name(package) else "a package without a valid name"


def _distribution(package: str) -> str:
    """The name in `distribution version`."""
    return package.rpartition(" ")[0]


def _used(config: AdaptkitConfig) -> Iterator[tuple[str, str]]:
    for name, described in read_modalities(config.modalities, "config").items():
        yield from _named("modality", described.type or name)
        yield from _named("encoder", described.encoder_name)
        yield from _named("projector", described.projector.get("name"))
    yield from _named("insertion policy", config.insertion.get("policy"))


def _named(kind: str, name: Any) -> Iterator[tuple[str, str]]:
    if isinstance(name, str):
        yield kind, name


def _has(kind: str, name: str) -> bool:
    try:
        get_plugin_manager().get(kind, name)
    except PluginError:
        return False
    return True
