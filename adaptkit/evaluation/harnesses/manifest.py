"""What lmms-eval's registry is told: `python -m lmms_eval --model adaptkit`."""

from __future__ import annotations

from typing import Any


def model_manifest() -> Any:
    """The entry point in the group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    module = "adaptkit.evaluation.harnesses.lmms"
    return ModelManifest("adaptkit", f"{module}.AdaptkitSimple", f"{module}.AdaptkitChat")
