"""What is installed on this machine, and whether it works: the facts behind `adaptkit doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from adaptkit.errors import DISTRIBUTION, install_command
from adaptkit.hookspecs import KINDS
from adaptkit.plugin_manager import get_plugin_manager

IMPORT_TIMEOUT_S = 120


@dataclass(frozen=True)
class OptionalPackage:
    """A package that adaptkit can use where it is installed.

    Attributes:
        distribution: Its name on the package index.
        purpose: What it is for.
        extra: The extra of adaptkit that installs it; empty where one installs it by its own name.
        module: What is imported to see whether it works; empty for those that need no such check.
    """

    distribution: str
    purpose: str
    extra: str = ""
    module: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.extra) if self.extra else f"pip install {self.distribution}"


OPTIONAL_PACKAGES = (
    OptionalPackage("deepspeed", "ZeRO-2 and ZeRO-3 on several GPUs", "deepspeed", "deepspeed"),
    OptionalPackage("flash-attn", "faster attention on recent NVIDIA GPUs", "flash-attn", "flash_attn"),
    OptionalPackage("liger-kernel", "fused loss and norms on GPUs", "liger", "liger_kernel"),
    OptionalPackage("bitsandbytes", "4-bit and 8-bit base models", "bitsandbytes", "bitsandbytes"),
    OptionalPackage("wandb", "logging to Weights & Biases", "wandb"),
    OptionalPackage("fastapi", "answering over HTTP", "serve"),
    OptionalPackage("ray", "copies of a server, adaptkit serve --replicas", "ray"),
    OptionalPackage("openai", "talking to a server", "chat"),
    OptionalPackage("gradio", "a web page to ask a run", "demo"),
    OptionalPackage("datasets", "the data format hf_dataset", "data"),
    OptionalPackage("lmms-eval", "public benchmarks of pictures and audio", "eval"),
    OptionalPackage("lm-eval", "public benchmarks of text", "eval"),
    OptionalPackage("adaptkit-clip", "images: the plugins clip, image, open-clip and timm", "vision"),
    OptionalPackage("adaptkit-whisper", "audio: the plugins audio and whisper", "audio"),
    OptionalPackage("adaptkit-timeseries", "time series", "series"),
    OptionalPackage("peft", "low-rank adapters"),
    OptionalPackage("openai-whisper", "Whisper audio encoders, for a plugin that uses them"),
    OptionalPackage("open_clip_torch", "OpenCLIP image encoders, for a plugin that uses them"),
    OptionalPackage("timm", "timm image backbones, for a plugin that uses them"),
)


def required_packages() -> list[dict[str, Any]]:
    """Python and the packages that adaptkit declares, each with the versions it supports and its status."""
    metadata = importlib.metadata.metadata(DISTRIBUTION)
    python = Requirement(f"python{metadata['Requires-Python']}")
    rows = [_package_row(python, platform.python_version())]
    for requirement in _requirements():
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            rows.append(_package_row(requirement, _installed_version(requirement.name)))
    return rows


def optional_packages() -> list[dict[str, Any]]:
    """The optional packages: status, version, purpose, and how to install those that are missing."""
    wanted = {canonicalize_name(r.name): r for r in _requirements() if r.marker is not None}
    rows = []
    for package in OPTIONAL_PACKAGES:
        name = canonicalize_name(package.distribution)
        row = _package_row(wanted.get(name, Requirement(name)), _installed_version(name))
        row |= {"name": package.distribution, "purpose": package.purpose, "install": package.install}
        problem = _import_problem(package.module) if package.module and row["version"] else None
        rows.append(row | ({"status": "broken", "problem": problem} if problem else {}))
    return rows


def foreign_package() -> str | None:
    """The version of a package `adaptkit`, which installs into the same folder as ours, where there is one."""
    return _installed_version("adaptkit")


def devices() -> dict[str, Any]:
    """Processor cores this process may use, threads torch uses, and the accelerators torch sees."""
    try:
        import torch
    except Exception as error:  # a broken torch is a finding for the report, not the report's end
        return {"cpu_cores": _num_cores(), "problem": f"torch: {type(error).__name__}: {error}"}
    accelerators = [
        {"name": properties.name, "memory_bytes": properties.total_memory}
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return {
        "cpu_cores": _num_cores(),
        "torch_threads": torch.get_num_threads(),
        "accelerators": accelerators,
        "mps": torch.backends.mps.is_available(),
    }


def plugins() -> dict[str, Any]:
    """Installed plugins with the number of components of each kind, and those that failed to load."""
    manager = get_plugin_manager()
    found = {}
    for name, package in manager.plugins.items():
        components = [c for c in manager.components() if c.plugin == name]
        kinds = {kind: [c.name for c in components if c.kind == kind] for kind in KINDS}
        found[name] = {"package": package, "offers": {kind: names for kind, names in kinds.items() if names}}
    broken = {b.name: {"package": b.package, "problem": b.reason} for b in manager.broken.values()}
    return {"loaded": found, "broken": broken}


def world_models() -> list[dict[str, Any]]:
    """The built-in models that ship with adaptkit: where they are, and their size in bytes."""
    from adaptkit.world import model_path

    rows: list[dict[str, Any]] = []
    for name in ("decoder", "encoder"):
        path = Path(model_path(name))
        weights = path / "model.safetensors"
        size = weights.stat().st_size if weights.is_file() else None
        status = "ok" if size and (path / "config.json").is_file() else "missing"
        rows.append({"name": name, "status": status, "path": str(path), "bytes": size})
    return rows


def _requirements() -> Iterator[Requirement]:
    yield from map(Requirement, importlib.metadata.requires(DISTRIBUTION) or [])


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package_row(requirement: Requirement, version: str | None) -> dict[str, Any]:
    if version is None:
        status = "missing"
    else:
        status = "ok" if requirement.specifier.contains(version, prereleases=True) else "unsupported"
    return {
        "name": requirement.name,
        "status": status,
        "version": version,
        "supported": str(requirement.specifier) or "any",
    }


def _import_problem(module: str) -> str | None:
    """Import a module in a child process, as a build for another torch may even crash the interpreter."""
    command = [sys.executable, "-W", "ignore", "-c", f"import {module}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"importing it took more than {IMPORT_TIMEOUT_S} s"
    if run.returncode == 0:
        return None
    lines = run.stderr.strip().splitlines()
    return lines[-1] if lines else f"importing it ended the process (exit code {run.returncode})"


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
