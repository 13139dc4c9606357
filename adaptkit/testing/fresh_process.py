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
from typing import Any

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
    module: str, directory: str, modalities: list[str], options: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Content keys and fingerprints as another process computes them.

    Args:
        module: Hook module of the plugin.
        directory: An empty folder, in which the examples of modalities are made again.
        modalities: Whose content keys to compute.
        options: Of its encoders, by name: those under which to take fingerprints.

    Returns:
        `keys`, by modality, for each example those of its items; `fingerprints`, by encoder.
    """
    given = {"module": module, "directory": directory, "modalities": modalities, "options": options}
    return _ask({"question": "hashes", **given})


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
    from pathlib import Path

    from adaptkit.plugin_manager import PluginManager
    from adaptkit.testing.examples import examples_of

    manager = PluginManager([])
    manager.add(importlib.import_module(question["module"]), name="plugin")
    keys: dict[str, list[list[str]]] = {}
    for component in (manager.get("modality", name) for name in question["modalities"]):
        directory = Path(question["directory"]) / component.name
        directory.mkdir()
        keys[component.name] = []
        for example in examples_of(component, directory):
            modality = manager.build("modality", component.name, example.options)
            keys[component.name].append([modality.content_key(item) for item in example.items])
    fingerprints = {
        name: [manager.build("encoder", name, options).fingerprint() for options in several]
        for name, several in question["options"].items()
    }
    return {"keys": keys, "fingerprints": fingerprints}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose names are nobody's to import
    asked = json.loads(sys.argv[1])
    given = (_answer_import if asked["question"] == "import" else _answer_hashes)(asked)
    print(json.dumps(given))
