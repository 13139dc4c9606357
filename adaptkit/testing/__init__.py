"""Tiny decoders, and contract checks for what plugins offer.

For adaptkit's own tests and for plugin authors': nothing here downloads, and each check raises
`ContractError` with the sentence of the contract that was broken. `adaptkit plugins check` runs the same checks, with
what a plugin registers as `examples`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.testing.checks import CheckResult
    from adaptkit.testing.components import check_component
    from adaptkit.testing.encoders import check_encoder
    from adaptkit.testing.examples import Example
    from adaptkit.testing.families import FAMILIES, tiny_config
    from adaptkit.testing.modalities import check_modality
    from adaptkit.testing.plugins import check_plugin
    from adaptkit.testing.policies import check_policy
    from adaptkit.testing.projectors import check_projector
    from adaptkit.testing.requirements import ContractError
    from adaptkit.testing.sources import check_data_source
    from adaptkit.testing.tiny import tiny_clip_vision, tiny_decoder, tiny_tokenizer

__all__ = [
    "FAMILIES",
    "CheckResult",
    "ContractError",
    "Example",
    "check_component",
    "check_data_source",
    "check_encoder",
    "check_modality",
    "check_plugin",
    "check_policy",
    "check_projector",
    "tiny_clip_vision",
    "tiny_config",
    "tiny_decoder",
    "tiny_tokenizer",
]

# Imported on first use: a process that only wants a plugin's examples need not wait for transformers
_MODULES = {
    "FAMILIES": "families",
    "CheckResult": "checks",
    "ContractError": "requirements",
    "Example": "examples",
    "check_component": "components",
    "check_data_source": "sources",
    "check_encoder": "encoders",
    "check_modality": "modalities",
    "check_plugin": "plugins",
    "check_policy": "policies",
    "check_projector": "projectors",
    "tiny_clip_vision": "tiny",
    "tiny_config": "families",
    "tiny_decoder": "tiny",
    "tiny_tokenizer": "tiny",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'adaptkit.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"adaptkit.testing.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
