"""A checkpoint says which package to install where a plugin is missing."""

from __future__ import annotations

import json

import pytest

import adaptkit
from adaptkit.errors import PluginError
from adaptkit.model import packages
from tests.unit.model.conftest import build


@pytest.fixture
def checkpoint(tmp_path):
    build("llama")[1].save_pretrained(tmp_path)
    return tmp_path


def test_packages_are_recorded(checkpoint):
    recorded = json.loads((checkpoint / "config.json").read_text())["packages"]
    assert recorded["encoder clip"].startswith("adaptkit-clip ")
    assert recorded["projector mlp2x_gelu"].startswith("adaptkit ")
    assert recorded["insertion policy inner_adapter"].startswith("adaptkit ")


@pytest.mark.parametrize("load", [adaptkit.load, adaptkit.load_processor])
def test_what_is_missing_is_named(checkpoint, monkeypatch, load):
    monkeypatch.setattr(packages, "_has", lambda kind, name: name not in ("clip", "image"))
    with pytest.raises(PluginError) as caught:
        load(checkpoint)
    assert "the encoder 'clip' of adaptkit-clip" in str(caught.value)
    assert "pip install adaptkit-image adaptkit-clip" in str(caught.value)
