"""Give a frozen decoder LLM new modalities through trainable inner adapters.

Names are imported on first use, so that `import adaptkit` and the command line stay fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.errors import AdaptkitError, ArgumentError, DataError, ModelError, PluginError, RecipeError, RunError
    from adaptkit.hookspecs import Options, hookimpl
    from adaptkit.inference import Session
    from adaptkit.interfaces import EncodedFeatures
    from adaptkit.model.assembly import adapt
    from adaptkit.model.checkpoint import load
    from adaptkit.model.modality_inputs import ModalityInputs
    from adaptkit.model.processor import AdaptkitProcessor, load_processor

__version__ = "0.1.0"

_LAZY = {
    "adapt": "adaptkit.model.assembly",
    "load": "adaptkit.model.checkpoint",
    "load_processor": "adaptkit.model.processor",
    "AdaptkitProcessor": "adaptkit.model.processor",
    "ModalityInputs": "adaptkit.model.modality_inputs",
    "AdaptkitError": "adaptkit.errors",
    "ArgumentError": "adaptkit.errors",
    "DataError": "adaptkit.errors",
    "ModelError": "adaptkit.errors",
    "PluginError": "adaptkit.errors",
    "RecipeError": "adaptkit.errors",
    "RunError": "adaptkit.errors",
    "EncodedFeatures": "adaptkit.interfaces",
    "Options": "adaptkit.hookspecs",
    "Session": "adaptkit.inference",
    "hookimpl": "adaptkit.hookspecs",
}

_AUTO_CLASSES = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING_NAMES", "AdaptkitConfig"),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING_NAMES", "AdaptkitProcessor"),
}
"""The tables in which transformers looks up a class by name, and our entry, which it imports from `_ALIAS`."""

_ALIAS = "transformers.models.adaptkit"

__all__ = [
    "AdaptkitError",
    "AdaptkitProcessor",
    "ArgumentError",
    "DataError",
    "EncodedFeatures",
    "ModalityInputs",
    "ModelError",
    "Options",
    "PluginError",
    "RecipeError",
    "RunError",
    "Session",
    "adapt",
    "hookimpl",
    "load",
    "load_processor",
]


class _AutoClassFinder:
    """Adds our classes to transformers' tables of names when transformers is imported, now or later.

    The classes themselves are imported when a checkpoint needs them, as transformers' own are. Then `adaptkit.model`
    also registers the models.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _AUTO_CLASSES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_add(module: ModuleType) -> None:
                execute(module)
                _add_class_name(module)

            spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]
        return spec


def _add_class_name(module: ModuleType) -> None:
    table, class_name = _AUTO_CLASSES[module.__name__]
    getattr(module, table)["adaptkit"] = class_name


def _import_class(name: str) -> Any:
    if name not in {class_name for _, class_name in _AUTO_CLASSES.values()}:
        raise AttributeError(f"module {_ALIAS!r} has no attribute {name!r}")
    return getattr(importlib.import_module("adaptkit.model"), name)


def _register_with_transformers() -> None:
    alias = ModuleType(_ALIAS)
    vars(alias)["__getattr__"] = _import_class
    sys.modules[_ALIAS] = alias
    sys.meta_path.insert(0, _AutoClassFinder())
    for name in _AUTO_CLASSES.keys() & sys.modules.keys():
        _add_class_name(importlib.import_module(name))  # waits for a thread that is importing it


_register_with_transformers()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'adaptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
