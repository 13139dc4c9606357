"""Scaffolded packages as if they were installed, whole or with a sentence of their code replaced."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.scaffold import write_scaffold

NAME = "gyro"
PLUGIN, MODULE = "adaptkit-gyro", "adaptkit_gyro"


class Installed:
    """A scaffolded package whose source is on the path.

    Args:
        folder: Where to write it.
        monkeypatch: Undoes what is done to the process.
        kind: Of scaffold.
        modality: For a scaffold of kind `encoder`.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str = "modality", modality: str | None = None
    ) -> None:
        package = write_scaffold(NAME, folder, kind=kind, modality=modality, manager=PluginManager())
        self.package = package
        self.source = package / "src" / MODULE
        monkeypatch.syspath_prepend(str(package / "src"))
        for name in [name for name in sys.modules if name.split(".")[0] == MODULE]:
            monkeypatch.delitem(sys.modules, name)
        self._monkeypatch = monkeypatch

    def replace(self, file: str, old: str, new: str) -> None:
        """Mutate the code."""
        text = (self.source / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
        (self.source / file).write_text(text.replace(old, new), encoding="utf-8")

    def manager(self) -> PluginManager:
        """All that is installed, and this."""
        get_plugin_manager()  # of the process: made before the environment limits which plugins load
        self._monkeypatch.setenv("ADAPTKIT_PLUGINS", f"adaptkit-image,{PLUGIN}")
        from importlib.metadata import entry_points

        return PluginManager([*entry_points(group="adaptkit"), EntryPoint(PLUGIN, MODULE, "adaptkit")])
