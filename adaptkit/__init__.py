"""Give a frozen decoder LLM new modalities through trainable inner adapters.

Names are imported on first use, so that `import adaptkit` and the command line stay fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from adaptkit.errors import AdaptkitError, ArgumentError, DataError, ModelError, PluginError, RecipeError, RunError
    from adaptkit.hookspecs import Options, hookimpl
    from adaptkit.interfaces import EncodedFeatures
    from adaptkit.model.assembly import adapt
    from adaptkit.model.checkpoint import load
    from adaptkit.model.processor import AdaptkitProcessor, ModalityInputs, load_processor

__version__ = "0.1.0"

_LAZY = {
    "adapt": "adaptkit.model.assembly",
    "load": "adaptkit.model.checkpoint",
    "load_processor": "adaptkit.model.processor",
    "AdaptkitProcessor": "adaptkit.model.processor",
    "ModalityInputs": "adaptkit.model.processor",
    "AdaptkitError": "adaptkit.errors",
    "ArgumentError": "adaptkit.errors",
    "DataError": "adaptkit.errors",
    "ModelError": "adaptkit.errors",
    "PluginError": "adaptkit.errors",
    "RecipeError": "adaptkit.errors",
    "RunError": "adaptkit.errors",
    "EncodedFeatures": "adaptkit.interfaces",
    "Options": "adaptkit.hookspecs",
    "hookimpl": "adaptkit.hookspecs",
}

_TRANSFORMERS_MODULES = (
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.auto_factory",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.feature_extraction_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.feature_extraction_utils",
    "transformers.image_processing_utils",
    "transformers.tokenization_utils_base",
    "transformers.tokenization_utils_tokenizers",
    "transformers.modeling_utils",
    "transformers.processing_utils",
    "transformers.generation.utils",
)
"""Whichever of these is imported last completes what the registration of our classes needs."""

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
    "adapt",
    "hookimpl",
    "load",
    "load_processor",
]


def _register_auto_classes(loaded: ModuleType) -> None:
    """Import `adaptkit.model`, which registers itself, once none of what it needs is half imported."""
    others = [name for name in _TRANSFORMERS_MODULES if name != loaded.__name__]
    if _half_imported(others) or "adaptkit.model" in sys.modules:
        return
    try:
        importlib.import_module("adaptkit.model")
    except ImportError:
        # Of a module that is not on our list; the next one that is completed tries again
        if not _half_imported([name for name in sys.modules if name.startswith("transformers.")]):
            raise


def _half_imported(names: Iterable[str]) -> bool:
    specs = (getattr(sys.modules.get(name), "__spec__", None) for name in names)
    return any(getattr(spec, "_initializing", False) for spec in specs)


for _name in _TRANSFORMERS_MODULES:
    wrapt.register_post_import_hook(_register_auto_classes, _name)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'adaptkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
