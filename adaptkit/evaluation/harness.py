"""What a score depends on beside the model, recorded with every score."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

DISTRIBUTIONS = ("adaptkit", "torch", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that computed a score."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def describe_harness(model: Any, **settings: Any) -> dict[str, Any]:
    """Rules, precision, device and versions behind the scores of a model."""
    return {
        "name": f"adaptkit {versions()['adaptkit']}",
        **settings,
        "decoding": "greedy, batched with left padding",
        "questions": "exact match after lower-casing and normalizing whitespace",
        "grounding": "a box of IoU 0.5 or more, parsed as a literal (IAA's official RefCOCO rule)",
        "majority": "most frequent answer of each kind in the training split",
        "blind": "the same workflow and question without the medium",
        "dtype": str(model.base.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": versions(),
    }
