"""A small recipe, and plugins of our own for it to name."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from adaptkit.errors import RecipeError
from adaptkit.hookspecs import KINDS, Options, hookimpl
from adaptkit.plugin_manager import PluginManager
from adaptkit.recipe import Recipe, load_recipe

SMALL_RECIPE = """\
# A recipe for tests. It trains nothing.
base: {path: some/decoder}
modalities:
  picture:
    encoder: {name: eye, path: some/encoder}
    projector: {name: mlp2x}
workflows:
  sight:
    insertion: {policy: inner, placement: {count: 2}}
    replace_ends: true
data:
  pairs: {format: json, path: pairs.json}
  answers: {format: json, path: answers.json, limit: 10}
stages:
  - name: align
    workflow: sight
    train: [projector]
    data: {pairs: 1.0}
    optimizer: {learning_rate: 1e-3}
  - name: instruct
    workflow: sight
    train: [projector, insertion, ends]
    start_from: align
    data: {pairs: 0.5, answers: 1.0}
    optimizer: {learning_rate: 2.0e-5, weight_decay: 0.1}
"""


class EyeCrop(Options):
    size: int = 8


class EyeOptions(Options):
    path: str
    feature_layer: int = -2
    pad: Literal["square", "none"] = "square"
    scale: float = 1.0
    crop: EyeCrop = EyeCrop()


class EarOptions(Options):
    sample_rate: int = 16000


class PictureOptions(Options):
    max_pixels: int = Field(default=100, ge=1)


class JsonOptions(Options):
    path: str
    limit: int | None = Field(default=None, ge=1)


class RankOptions(Options):
    rank: int = 8


COMPONENTS: dict[str, list[dict[str, Any]]] = {
    "modality": [{"name": "picture", "options": PictureOptions}, {"name": "sound"}],
    "encoder": [{"name": "eye", "options": EyeOptions}, {"name": "ear", "options": EarOptions}],
    "projector": [{"name": "linear"}, {"name": "mlpNx", "pattern": r"mlp[1-9]x"}],
    "insertion policy": [
        {"name": "inner", "needs_placement": lambda options: True},
        {"name": "nothing", "inserts": lambda options: False},
        {"name": "adapter", "adapts_encoders": lambda options: True},
        {"name": "low_rank", "options": RankOptions},
        {"name": "beside", "feature_mode": lambda options: "context"},
    ],
    "data source": [{"name": "json", "options": JsonOptions}, {"name": "made_up"}],
    "evaluation task": [{"name": "quiz", "options": RankOptions}],
}


def _hook(name: str, components: list[dict[str, Any]]) -> Callable[[Any], None]:
    def register_all(register: Any) -> None:
        for component in components:
            register(build=lambda *args: None, **component)

    register_all.__name__ = name
    return hookimpl(register_all)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    module = types.ModuleType("plugin_for_recipe_tests")
    for kind, components in COMPONENTS.items():
        setattr(module, KINDS[kind], _hook(KINDS[kind], components))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("ADAPTKIT_PLUGINS", raising=False)
    manager = PluginManager([importlib.metadata.EntryPoint("fake", module.__name__, "adaptkit")])
    assert not manager.broken
    return manager


class Workplace:
    """A folder of recipes."""

    def __init__(self, folder: Path, plugins: PluginManager) -> None:
        self.folder = folder
        self.plugins = plugins

    def write(self, text: str, name: str = "small.yaml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, text: str = SMALL_RECIPE, *overrides: str, name: str = "small.yaml") -> Recipe:
        return load_recipe(self.write(text, name), overrides, plugins=self.plugins)

    def errors(self, text: str = SMALL_RECIPE, *overrides: str, name: str = "small.yaml") -> list[str]:
        """The lines of the error, without the folder."""
        with pytest.raises(RecipeError) as caught:
            self.load(text, *overrides, name=name)
        assert caught.value.exit_code == 2
        return str(caught.value).replace(f"{self.folder}/", "").splitlines()


@pytest.fixture
def workplace(tmp_path: Path, plugins: PluginManager) -> Workplace:
    return Workplace(tmp_path, plugins)
