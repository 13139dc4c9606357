"""What a process needs to talk to a hub of tests: settings of the hub's library, which reads them when imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import constants

from tests.hub.server import TOKEN, Hub


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """Variables for a new process."""
    names = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return {**names, "HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}


def connected(patch: Any, hub: Hub, cache: Path) -> None:
    """Set in this process what those variables set in a new one."""
    for name, value in environment(hub, cache).items():
        patch.setenv(name, value)
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # made once, for the address of that time
