"""All contract checks that apply to a plugin and to everything it registers."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from adaptkit.errors import PluginError, unknown_name
from adaptkit.hookspecs import KINDS, Component
from adaptkit.plugin_manager import PluginManager, get_plugin_manager, is_of
from adaptkit.testing.checks import FAILED, PASSED, SKIPPED, Check, CheckResult, collect
from adaptkit.testing.components import ComponentChecks, check_registration
from adaptkit.testing.encoders import EncoderChecks
from adaptkit.testing.examples import Example, examples_of
from adaptkit.testing.fresh_process import compute_hashes, hashes_elsewhere, inspect_import
from adaptkit.testing.modalities import ModalityChecks
from adaptkit.testing.network import no_network
from adaptkit.testing.policies import PolicyChecks
from adaptkit.testing.projectors import ProjectorChecks
from adaptkit.testing.requirements import require
from adaptkit.testing.sources import SourceChecks

CHECKS: dict[str, type[ComponentChecks[Any]]] = {
    "modality": ModalityChecks,
    "encoder": EncoderChecks,
    "projector": ProjectorChecks,
    "insertion policy": PolicyChecks,
    "data source": SourceChecks,
}

MAX_IMPORT_S = 1.0
TRIES = 3  # a busy machine may be slow once
_HASHED = ("modality", "encoder")
"""Kinds whose examples are necessary, and whose hashes name files that outlive a process."""

Progress = Callable[[str], None]


def check_plugin(
    name: str, *, manager: PluginManager | None = None, progress: Progress | None = None, fresh_processes: bool = True
) -> list[CheckResult]:
    """Run every contract check that applies to a plugin, package or component.

    Args:
        name: Of an entry point, of an installed package, or of a component.
        manager: Where to look it up; all installed plugins by default.
        progress: Called with what is checked next.
        fresh_processes: Whether to check, too, what only other processes can show, which takes some seconds: how light
            the import is, and whether hashes last.

    Returns:
        One result a check; no check raises.

    Raises:
        PluginError: Nothing has this name.
    """
    manager = manager or get_plugin_manager()
    results: list[CheckResult] = []
    for plugin, components in select(manager, name):
        checks = PluginChecks(manager, plugin, components, fresh_processes)
        results += checks.results(progress or (lambda what: None))
    return results


def select(manager: PluginManager, name: str) -> list[tuple[str, list[Component]]]:
    """Plugins that a name stands for, with their components, or with the one component that it names.

    Raises:
        PluginError: Nothing has this name.
    """
    folder = name
    if (project := Path(folder) / "pyproject.toml").is_file():
        try:
            distribution = str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["name"])
        except (ValueError, LookupError, TypeError) as error:
            raise PluginError(f"{project}: no name of a package can be read from it: {error}") from error
        if manager.problem_of(distribution) is not None:
            name = distribution
    packages = manager.plugins | {broken.name: broken.package for broken in manager.broken.values()}
    named = [plugin for plugin in packages if plugin == name]
    named = named or [plugin for plugin, package in packages.items() if is_of(package, name)]
    if named:
        return [(plugin, [c for c in manager.components() if c.plugin == plugin]) for plugin in named]
    found = [c for c in manager.components() if c.name == name or (c.pattern and re.fullmatch(c.pattern, name))]
    if found:
        return [(component.plugin, [component]) for component in found]
    known = {*packages, *(package.split()[0] for package in packages.values()), *(c.name for c in manager.components())}
    for plugin, package in manager.excluded.items():
        if name == plugin or is_of(package, name):
            raise PluginError(f"{name}: {manager.problem_of(package.split()[0])}.")
    if project.is_file():
        raise PluginError(f"the package in {folder} is not installed: `pip install -e {folder}`, then check it.")
    hint = "Give the name of an entry point, a package or a component. Is the package installed?"
    raise PluginError(unknown_name("plugin", name, known, hint=hint))


class PluginChecks:
    """The contract of one plugin and of some of its components.

    Args:
        manager: Where it is registered.
        plugin: Its name.
        components: Those to check.
        fresh_processes: As in `check_plugin`.
    """

    def __init__(
        self, manager: PluginManager, plugin: str, components: list[Component], fresh_processes: bool = True
    ) -> None:
        self.manager, self.plugin, self.components = manager, plugin, components
        self._fresh_processes = fresh_processes
        self._module = None if plugin in manager.broken else manager.module_name(plugin)
        self._examples: list[tuple[Component, list[Example]]] = []

    def results(self, progress: Progress) -> list[CheckResult]:
        """Run all of them."""
        progress(f"plugin {self.plugin}")
        found = collect("plugin", self.plugin, self.own_checks())
        with tempfile.TemporaryDirectory() as directory:
            for component in self.components:
                progress(f"{component.kind} {component.name}")
                found += self._results_of(component, Path(directory) / component.kind / component.name)
            if (
                self._fresh_processes
                and self._module
                and any(component.kind in _HASHED for component, _ in self._examples)
            ):
                progress("hashes in another process")
                check = Check("hashes in another process", lambda: self._hashes(Path(directory) / "again"))
                found += collect("plugin", self.plugin, [check])
        return found

    def own_checks(self) -> Iterator[Check]:
        """Those of the plugin itself."""
        yield Check("loads", self._loads, essential=True)
        if self._fresh_processes:
            yield Check("imports quickly and lightly", self._imports)

    def _loads(self) -> None:
        broken = self.manager.broken.get(self.plugin)
        require(broken is None, f"it fails to load: {broken.reason if broken else ''}")
        hooks = ", ".join(KINDS.values())
        require(bool(self.components), f"it registers nothing: write one of {hooks}, marked @hookimpl")

    def _imports(self) -> str | None:
        if self._module is None:
            return "it is not a module"
        times: list[float] = []
        while len(times) < TRIES and (not times or times[-1] > MAX_IMPORT_S):
            found = inspect_import(self._module)
            require("error" not in found, f"{self._module} cannot be imported in a fresh process: {found.get('error')}")
            heavy = ", ".join(found["heavy"])
            require(not heavy, f"importing {self._module} imports {heavy}: import such libraries inside the builders")
            times.append(found["seconds"])
        limit = f"importing {self._module} takes {min(times):.1f} s; at most {MAX_IMPORT_S:g} s are allowed"
        require(min(times) <= MAX_IMPORT_S, limit)
        return None

    def _results_of(self, component: Component, directory: Path) -> list[CheckResult]:
        examples: list[Example] = []

        def make() -> None:
            directory.mkdir(parents=True)
            with no_network(f"making examples of the {component.kind} {component.name!r}"):
                examples.extend(examples_of(component, directory))

        [made] = collect(component.kind, component.name, [Check("examples", make)])
        if made.outcome == FAILED:
            return [made]
        if not examples:
            return _results_without_examples(component)
        self._examples.append((component, examples))
        found = []
        for example in examples:
            results = collect(component.kind, component.name, self._checks_of(component, example))
            found.append((example, results))
        return _joined(found)

    def _checks_of(self, component: Component, example: Example) -> Iterable[Check]:
        kind, name = component.kind, example.name or _served_name(component)
        return CHECKS.get(kind, ComponentChecks)(kind, name, example, self.manager).checks()

    def _hashes(self, directory: Path) -> None:
        """Content keys and fingerprints name files in caches, so they must outlive a process."""
        assert self._module is not None
        modalities = [component.name for component, _ in self._examples if component.kind == "modality"]
        options = {
            component.name: [
                component.options.model_validate(dict(e.options)).model_dump(mode="json") for e in examples
            ]
            for component, examples in self._examples
            if component.kind == "encoder"
        }
        here = compute_hashes(self.manager, directory / "here", modalities, options)
        found = hashes_elsewhere(self._module, directory / "elsewhere", modalities, options)
        require("error" not in found, f"another process cannot compute them: {found.get('error')}")
        for name, keys in here["keys"].items():
            same = found["keys"].get(name) == keys
            require(same, f"content_key of the modality {name!r} gives other keys in another process")
        for name, prints in here["fingerprints"].items():
            same = found["fingerprints"].get(name) == prints
            require(same, f"fingerprint() of the encoder {name!r} is another in another process")


def _results_without_examples(component: Component) -> list[CheckResult]:
    registration = Check("registration and options", lambda: check_registration(component))
    found = collect(component.kind, component.name, [registration])
    if component.kind in _HASHED:
        message = (
            "it cannot be tried: register examples=, a function of a folder that returns a list of "
            "adaptkit.testing.Example"
        )
        return [*found, CheckResult(component.kind, component.name, "examples", FAILED, message)]
    message = "it has required options and registers no examples"
    return [*found, CheckResult(component.kind, component.name, "examples", SKIPPED, message)]


def _joined(found: list[tuple[Example, list[CheckResult]]]) -> list[CheckResult]:
    """One result a check: the worst among the examples, which is named where there are several."""
    order = [FAILED, PASSED, SKIPPED]
    if len(found) == 1:
        return found[0][1]
    results: list[CheckResult] = []
    for column in zip(*(results for _, results in found), strict=True):
        number = min(range(len(column)), key=lambda i: order.index(column[i].outcome))
        worst, options = column[number], dict(found[number][0].options)
        message = f"with {options}: {worst.message}" if worst.message else ""
        results.append(CheckResult(worst.kind, worst.name, worst.check, worst.outcome, message))
    return results


def _served_name(component: Component) -> str:
    """A name that a registration serves, where its pattern serves many."""
    names = (component.name, component.name.replace("N", "2"))
    return next((n for n in names if component.pattern and re.fullmatch(component.pattern, n)), component.name)
