"""Versions of the libraries that computed something."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import adaptkit

DISTRIBUTIONS = ("torch", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a model computes."""
    found = {"python": platform.python_version(), "adaptkit": adaptkit.__version__}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
