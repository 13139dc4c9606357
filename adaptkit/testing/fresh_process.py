"""What only a process that has imported nothing yet can show: how light a hook module is, and which hashes last.

Run as a script, it is that process: it imports adaptkit's hooks, then a plugin's module, and prints what it found.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.plugin_manager import PluginManager

HEAVY = ("torch", "transformers", "tensorflow", "jax")
_TIMEOUT_S = 120


def inspect_import(module: str) -> dict[str, Any]:
    """Import a hook module in a fresh process, and run its hooks.

    Args:
        module: Its dotted name.

    Returns:
        `seconds` it took, without adaptkit's own import; `heavy` libraries that came with it; `error`, if any.
    """
    return _ask({"question": "import", "module": module})


def hashes_elsewhere(
    module: str, directory: Path, modalities: list[str], options: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """What `compute_hashes` gives in another process, for the plugin whose hooks are in a module."""
    given = {"module": module, "directory": str(directory), "modalities": modalities, "options": options}
    return _ask({"question": "hashes", **given})


def compute_hashes(
    manager: PluginManager, directory: Path, modalities: list[str], options: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Content keys and fingerprints.

    Args:
        manager: Where the components are registered.
        directory: A new folder, in which the examples of modalities are made again.
        modalities: Whose content keys to compute.
        options: Of encoders, by name: those under which to take fingerprints.

    Returns:
        `keys`, by modality, for each example those of its items; `fingerprints`, by encoder.
    """
    from adaptkit.testing.examples import examples_of

    keys: dict[str, list[list[str]]] = {}
    for component in (manager.get("modality", name) for name in modalities):
        folder = directory / component.name
        folder.mkdir(parents=True)
        keys[component.name] = []
        for example in examples_of(component, folder):
            modality = manager.build("modality", component.name, example.options)
            keys[component.name].append([modality.content_key(item) for item in example.items])
    fingerprints = {
        name: [manager.build("encoder", name, each).fingerprint() for each in several]
        for name, several in options.items()
    }
    return {"keys": keys, "fingerprints": fingerprints}


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("PYTHONHASHSEED", None)
    run = subprocess.run(
        [sys.executable, __file__, json.dumps(question)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=_TIMEOUT_S,
    )
    lines = run.stdout.splitlines()
    if run.returncode or not lines:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return {"error": last}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _answer_import(question: dict[str, Any]) -> dict[str, Any]:
    from adaptkit.hookspecs import KINDS

    started = time.perf_counter()
    module = importlib.import_module(question["module"])
    for hook in filter(None, (getattr(module, name, None) for name in KINDS.values())):
        hook(lambda **registered: None)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "heavy": [name for name in HEAVY if name in sys.modules]}


def _answer_hashes(question: dict[str, Any]) -> dict[str, Any]:
    from adaptkit.plugin_manager import PluginManager

    manager = PluginManager([])
    manager.add(importlib.import_module(question["module"]), name="plugin")
    return compute_hashes(manager, Path(question["directory"]), question["modalities"], question["options"])


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose names are nobody's to import
    asked = json.loads(sys.argv[1])
    given = (_answer_import if asked["question"] == "import" else _answer_hashes)(asked)
    print(json.dumps(given))
