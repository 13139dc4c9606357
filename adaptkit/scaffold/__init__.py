"""`adaptkit plugins new`: a plugin package that installs and passes its checks, to be filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from adaptkit import __version__
from adaptkit.errors import PluginError, unknown_name
from adaptkit.files.writing import staged_folder, write_text
from adaptkit.hookspecs import CONTRACT_VERSION
from adaptkit.plugin_manager import PluginManager, get_plugin_manager

__all__ = ["SCAFFOLDS", "Scaffold", "write_scaffold"]

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_MAX_LENGTH = 40
_PREFIX = re.compile(r"adaptkit[-_]")
_RESERVED = {"text": "chat messages call their text parts so", "adaptkit": "the package itself has this name"}
_SUFFIX = ".jinja"


@dataclass(frozen=True)
class Scaffold:
    """One kind of package.

    Attributes:
        folders: Of templates, later ones beside or over earlier ones.
        registers: Kinds of component it registers, all under the package's name.
    """

    folders: tuple[str, ...]
    registers: tuple[str, ...]


SCAFFOLDS = {
    "modality": Scaffold(("common", "encoder", "modality"), ("modality", "encoder")),
    "encoder": Scaffold(("common", "encoder"), ("encoder",)),
    "projector": Scaffold(("common", "projector"), ("projector",)),
    "policy": Scaffold(("common", "policy"), ("insertion policy",)),
}


def write_scaffold(
    name: str,
    directory: Path,
    *,
    kind: str = "modality",
    modality: str | None = None,
    manager: PluginManager | None = None,
) -> Path:
    """Write a plugin package.

    Args:
        name: What recipes will call it, with or without the prefix `adaptkit-`: `gyro`, `wind-speed`.
        directory: Folder in which to make the package's own.
        kind: One of `SCAFFOLDS`.
        modality: For an encoder alone: an installed modality, whose items it encodes.
        manager: What is installed.

    Returns:
        The package's folder.

    Raises:
        PluginError: The name is invalid, reserved or taken; the folder exists already; the modality is unknown.
    """
    manager = manager or get_plugin_manager()
    if kind not in SCAFFOLDS:
        raise PluginError(unknown_name("kind of scaffold", kind, SCAFFOLDS))
    short = _checked_name(name, SCAFFOLDS[kind], manager)
    values = _values(short, kind, _checked_modality(kind, modality, short, manager))
    folder = directory / str(values["distribution"])
    if folder.exists():
        raise PluginError(f"{folder} exists already. Choose another name, or another --directory.")
    files = _render(SCAFFOLDS[kind], values)
    with staged_folder(folder) as staged:
        for target, content in files.items():
            write_text(staged / target, content)
    return folder


def _checked_name(name: str, scaffold: Scaffold, manager: PluginManager) -> str:
    short = _PREFIX.sub("", name, count=1)
    if not _NAME.fullmatch(short) or len(short) > _MAX_LENGTH:
        raise PluginError(
            f"{name!r} is not a name for a plugin: use up to {_MAX_LENGTH} small letters and digits, in words joined "
            "by hyphens, beginning with a letter; such as gyro or wind-speed."
        )
    if short in _RESERVED:
        raise PluginError(f"the name {short!r} is reserved: {_RESERVED[short]}.")
    component, distribution = short.replace("-", "_"), f"adaptkit-{short.replace('_', '-')}"
    for kind in scaffold.registers:
        taken = [c for c in manager.components(kind) if c.name == component]
        if taken:
            raise PluginError(f"a {kind} named {component!r} is installed already, by {taken[0].package}.")
    packages = {*manager.plugins.values(), *(broken.package for broken in manager.broken.values())}
    if distribution in {*manager.plugins, *manager.broken, *(package.split()[0] for package in packages)}:
        raise PluginError(f"a plugin package named {distribution!r} is installed already.")
    return short


def _checked_modality(kind: str, modality: str | None, short: str, manager: PluginManager) -> str:
    if kind != "encoder":
        if modality is not None:
            raise PluginError(f"--modality goes with --kind encoder; a package of kind {kind} takes none.")
        return short.replace("-", "_")
    if modality is None:
        known = ", ".join(manager.names("modality")) or "none"
        raise PluginError(f"--kind encoder needs --modality, whose items it encodes. Installed: {known}.")
    component = manager.get("modality", modality)
    if component.stand_in is None:
        raise PluginError(
            f"the modality {modality!r} ({component.package}) registers no stand_in, so there would be nothing to try "
            "the encoder with."
        )
    return modality


def _values(short: str, kind: str, modality: str) -> dict[str, object]:
    words = re.split("[-_]", short)
    return {
        "kind": kind,
        "component": "_".join(words),
        "distribution": "-".join(["adaptkit", *words]),
        "module": "_".join(["adaptkit", *words]),
        "class_name": "".join(word.capitalize() for word in words),
        "modality": modality,
        "with_modality": kind == "modality",
        "words": " ".join(words),
        "version": __version__,
        "contract": CONTRACT_VERSION,
    }


def _render(scaffold: Scaffold, values: dict[str, object]) -> dict[str, str]:
    """Content of each file of the package, by its path within."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    rendered: dict[str, str] = {}
    with as_file(files("adaptkit.scaffold") / "templates") as root:
        for folder in scaffold.folders:
            for template in sorted(path for path in (root / folder).rglob(f"*{_SUFFIX}")):
                inside = template.relative_to(root / folder).as_posix().removesuffix(_SUFFIX)
                target = inside.replace("adaptkit_NAME", str(values["module"]))
                rendered[target] = environment.from_string(template.read_text(encoding="utf-8")).render(values)
    return rendered
