"""A checkpoint says which package to install where a plugin is missing."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import pytest

import adaptkit
from adaptkit.errors import PluginError
from adaptkit.model import config
from adaptkit.plugin_manager import BrokenPlugin, PluginManager
from tests.unit.model.conftest import build


@pytest.fixture
def checkpoint(tmp_path):
    build("llama")[1].save_pretrained(tmp_path)
    return tmp_path


def test_packages_are_recorded(checkpoint):
    recorded = json.loads((checkpoint / "config.json").read_text())["packages"]
    assert recorded["encoder clip"].startswith("adaptkit-clip ")
    assert recorded["projector mlp2x_gelu"].startswith("inner-adaptkit ")
    assert recorded["insertion policy inner_adapter"].startswith("inner-adaptkit ")


@pytest.mark.parametrize("load", [adaptkit.load, adaptkit.load_processor])
def test_what_is_missing_is_named(checkpoint, monkeypatch, load):
    installed = entry_points(group="adaptkit")
    manager = PluginManager(point for point in installed if point.name not in ("adaptkit-clip", "adaptkit-image"))
    monkeypatch.setattr(config, "get_plugin_manager", lambda: manager)
    with pytest.raises(PluginError) as caught:
        load(checkpoint)
    assert "the encoder 'clip' of adaptkit-clip" in str(caught.value)
    assert "pip install adaptkit-image adaptkit-clip" in str(caught.value)


def _broken(manager):
    broken = BrokenPlugin(
        "adaptkit-clip", "adaptkit-clip 9.9", "ImportError: libfoo.so: cannot open shared object file"
    )
    manager.broken["adaptkit-clip"] = broken
    return ["adaptkit-clip 9.9", "libfoo.so: cannot open"]


def _excluded(manager):
    manager.excluded["adaptkit-clip"] = "adaptkit-clip 9.9"
    return ["adaptkit-clip 9.9", "ADAPTKIT_PLUGINS excludes"]


def _changed(manager):
    manager.plugins["adaptkit-clip"] = "Adaptkit_Clip 9.9"
    return ["Adaptkit_Clip 9.9", "does not offer it"]


@pytest.mark.parametrize("happened", [_broken, _excluded, _changed])
def test_what_is_installed_and_unusable_is_not_called_missing(checkpoint, monkeypatch, happened):
    manager = PluginManager([point for point in entry_points(group="adaptkit") if point.name != "adaptkit-clip"])
    words = happened(manager)
    monkeypatch.setattr(config, "get_plugin_manager", lambda: manager)
    with pytest.raises(PluginError) as caught:
        adaptkit.load(checkpoint)
    assert all(word in str(caught.value) for word in words)
    assert "pip install" not in str(caught.value)
