"""Give a frozen decoder LLM new modalities through trainable inner adapters.

Names are imported on first use, so that `import adaptkit` and the command line stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from adaptkit.errors import AdaptkitError, DataError, ModelError, PluginError, RecipeError, RunError
    from adaptkit.model.assembly import adapt
    from adaptkit.model.checkpoint import load
    from adaptkit.model.processor import load_processor
    from adaptkit.hookspecs import Options, hookimpl

__version__ = "0.1.0"

_LAZY = {
    "adapt": "adaptkit.model.assembly",
    "load": "adaptkit.model.checkpoint",
    "load_processor": "adaptkit.model.processor",
    "AdaptkitError": "adaptkit.errors",
    "DataError": "adaptkit.errors",
    "ModelError": "adaptkit.errors",
    "PluginError": "adaptkit.errors",
    "RecipeError": "adaptkit.errors",
    "RunError": "adaptkit.errors",
    "Options": "adaptkit.hookspecs",
    "hookimpl": "adaptkit.hookspecs",
}

__all__ = [
    "AdaptkitError",
    "DataError",
    "ModelError",
    "Options",
    "PluginError",
    "RecipeError",
    "RunError",
    "adapt",
    "hookimpl",
    "load",
    "load_processor",
]


@wrapt.when_imported("transformers.models.auto")  # type: ignore[untyped-decorator]
def _register_auto_classes(_: Any) -> None:
    from adaptkit.model.auto import register_auto_classes

    register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'adaptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
