"""Discovery of plugins through entry points, and lookup of what they registered, by kind and name.

A plugin that cannot be imported, or whose hook raises, is kept aside and named; it stops a run only when
the run needs something that no healthy plugin offers. Set `ADAPTKIT_PLUGINS` to a comma-separated list of
entry-point names to load only those beside adaptkit's own (empty: none).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import pluggy
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from adaptkit import hookspecs
from adaptkit.errors import PluginError, inert, unknown_name, wrong_type
from adaptkit.hookspecs import GROUP, KINDS, Component, Options

CORE_DISTRIBUTION = "adaptkit"
SELECTION_VARIABLE = "ADAPTKIT_PLUGINS"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that was found but could not be used."""

    name: str
    package: str
    reason: str


class PluginManager:
    """Everything that installed plugins offer.

    Args:
        entry_points: Entry points to load; those of the installed distributions by default.
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> None:
        self._pluggy = pluggy.PluginManager(GROUP)
        self._pluggy.add_hookspecs(hookspecs)
        self._components: dict[tuple[str, str], Component] = {}
        self.plugins: dict[str, str] = {}
        self.broken: dict[str, BrokenPlugin] = {}
        self.excluded: dict[str, str] = {}
        if entry_points is None:
            entry_points = importlib.metadata.entry_points(group=GROUP)
        for entry_point in sorted(entry_points, key=lambda e: (not _is_core(e), e.name)):
            if _is_selected(entry_point):
                self._load(entry_point)
            else:
                self.excluded[entry_point.name] = _package_of(entry_point)

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        package = _package_of(entry_point)
        if entry_point.name in self.plugins or entry_point.name in self.broken:
            self._refuse_namesake(entry_point.name, package)
            return  # an editable and a regular install of one distribution may both be listed
        try:
            components = self._register(entry_point.load(), entry_point.name, package)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin raises, sys.exit too, must not stop the others
            reason = inert(f"{type(error).__name__}: {error}")
            self.broken[entry_point.name] = BrokenPlugin(entry_point.name, package, reason)
            return
        self._take_in(components, entry_point.name, package)

    def add(self, plugin: Any, name: str) -> None:
        """Take in a plugin that is no installed package yet, for the life of this process.

        Args:
            plugin: A module, or any object with hook functions.
            name: What to call it.

        Raises:
            PluginError: The name is taken, or it registers what another plugin has registered.
        """
        if name in self.plugins or name in self.broken:
            raise PluginError(f"a plugin named {name!r} is loaded already.")
        self._take_in(self._register(plugin, name, "this process"), name, "this process")

    def _register(self, module: Any, name: str, package: str) -> list[Component]:
        try:
            self._pluggy.register(module, name=name)
            self._pluggy.check_pending()
            return self._collect(module, name, package)
        except BaseException:  # whatever it raised, nothing of the plugin stays
            self._forget(name)
            raise

    def _forget(self, name: str) -> None:
        if self._pluggy.has_plugin(name):
            self._pluggy.unregister(name=name)

    def _collect(self, module: Any, plugin: str, package: str) -> list[Component]:
        components: list[Component] = []
        for kind, hook_name in KINDS.items():
            implementation = getattr(module, hook_name, None)
            if implementation is None or self._pluggy.parse_hookimpl_opts(module, hook_name) is None:
                continue

            def register(
                *, name: str, build: Any, options: type[Options] = Options, description: str = "",
                pattern: str | None = None, kind: str = kind, hook_name: str = hook_name, **extra: Any,
            ) -> None:  # fmt: skip
                component = Component(kind, name, build, options, description, pattern, extra, plugin, package)
                _check_types(component, hook_name)
                components.append(component)

            implementation(register)
        return components

    def _refuse_namesake(self, name: str, package: str) -> None:
        known = self.plugins[name] if name in self.plugins else self.broken[name].package
        if known.split()[0] != package.split()[0]:
            raise PluginError(f"two packages name a plugin {name!r}: {known} and {package}. Uninstall one of them.")

    def _take_in(self, components: list[Component], plugin: str, package: str) -> None:
        """List what a plugin registered: all of it, or nothing where a name is taken."""
        added: dict[tuple[str, str], Component] = {}
        for component in components:
            key = (component.kind, component.name)
            taken = self._components.get(key) or added.get(key)
            if taken is not None:
                self._forget(plugin)
                raise PluginError(
                    f"two plugins register the {component.kind} {component.name!r}: {taken.plugin} "
                    f"({taken.package}) and {component.plugin} ({component.package}). Uninstall one, or list the "
                    f"plugins to load in {SELECTION_VARIABLE}."
                )
            added[key] = component
        self.plugins[plugin] = package
        self._components |= added

    def module_name(self, plugin: str) -> str | None:
        """The module in which a plugin's hooks are, where it is one."""
        module = self._pluggy.get_plugin(plugin)
        return module.__name__ if isinstance(module, ModuleType) else None

    def names(self, kind: str) -> list[str]:
        """Names registered for a kind, sorted."""
        return sorted(name for component_kind, name in self._components if component_kind == kind)

    def components(self, kind: str | None = None) -> list[Component]:
        """What is registered, of one kind or of all, in the order of kinds and names."""
        order = list(KINDS)
        found = [c for c in self._components.values() if kind in (None, c.kind)]
        return sorted(found, key=lambda c: (order.index(c.kind), c.name))

    def get(self, kind: str, name: str) -> Component:
        """Look up a component.

        Raises:
            PluginError: Nothing of that kind has this name; the message has the nearest, and broken plugins.
        """
        if not isinstance(name, str):
            raise PluginError(wrong_type(kind, "a name", name))
        found = self._components.get((kind, name))
        if found is None:
            patterned = (c for c in self.components(kind) if c.pattern and re.fullmatch(c.pattern, name))
            found = next(patterned, None)
        if found is None:
            hint = " ".join(["See `adaptkit plugins` for their sources.", *self._unavailable()])
            raise PluginError(unknown_name(kind, name, self.names(kind), hint=hint))
        return found

    def _unavailable(self) -> list[str]:
        """What is not looked through for a name, a sentence each."""
        sentences = []
        if SELECTION_VARIABLE in os.environ:
            excluded = ", ".join(f"{name} ({package})" for name, package in self.excluded.items()) or "no installed one"
            unknown = sorted(_selection() - {*self.plugins, *self.broken})
            named = f" It names {', '.join(unknown)}, which no installed package has." if unknown else ""
            variable = f"{SELECTION_VARIABLE}={os.environ[SELECTION_VARIABLE]!r}"
            sentences.append(f"{variable} limits which plugins load, and excludes {excluded}.{named}")
        if self.broken:
            reasons = "; ".join(f"{b.name} ({b.package}): {b.reason}" for b in self.broken.values())
            sentences.append(f"Plugins that failed to load: {reasons}.")
        return sentences

    def problem_of(self, distribution: str) -> str | None:
        """Why an installed package does not offer something: it failed to load, is excluded, or lacks it.

        Args:
            distribution: Name of the package.

        Returns:
            A clause that names the package; None where it has no plugin here, that is, where it is not installed.
        """
        for broken in self.broken.values():
            if is_of(broken.package, distribution):
                return f"{broken.package} is installed, and its plugin {broken.name} failed to load: {broken.reason}"
        for name, package in self.excluded.items():
            if is_of(package, distribution):
                return f"{package} is installed, and {SELECTION_VARIABLE} excludes its plugin {name}: add it there"
        for package in self.plugins.values():
            if is_of(package, distribution):
                return f"{package} is installed, and does not offer it: install another version"
        return None

    def options(self, kind: str, name: str, values: Mapping[str, Any]) -> Options:
        """Validate a component's options.

        Raises:
            PluginError: The name is unknown, or a value does not fit the component's options type.
        """
        component = self.get(kind, name)
        try:
            return component.options.model_validate(dict(values))
        except ValidationError as error:
            problems = "; ".join(_problem(component, dict(details)) for details in error.errors())
            raise PluginError(f"options of the {kind} {name!r}: {problems}") from error

    def build(self, kind: str, name: str, values: Mapping[str, Any], *args: Any) -> Any:
        """Validate the options of a component and build it with `args` after them."""
        return self.get(kind, name).build(self.options(kind, name, values), *args)


def _check_types(component: Component, hook_name: str) -> None:
    """Refuse what would fail later, in somebody else's lookup or listing."""
    name, texts = component.name, (component.name, component.description)
    if not (all(isinstance(text, str) for text in texts) and name):
        raise TypeError(f"{hook_name}: the name and the description of {name!r} must be texts, and the name not empty")
    if not (isinstance(component.options, type) and issubclass(component.options, Options)):
        raise TypeError(f"{hook_name}: options of {name!r} must be a subclass of adaptkit.Options")
    if not all(callable(function) for function in (component.build, *component.extra.values())):
        raise TypeError(f"{hook_name}: build and the further functions of {name!r} must be callable")
    try:
        re.compile(component.pattern or "")
    except (re.error, TypeError) as error:
        raise TypeError(f"{hook_name}: the pattern of {name!r} is no regular expression: {error}") from error


def _problem(component: Component, details: dict[str, Any]) -> str:
    """One of pydantic's complaints in our words: an unknown option comes with the nearest known one."""
    where = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden" and len(details["loc"]) == 1:
        return unknown_name("option", where, component.options.model_fields)
    message = str(details["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _is_core(entry_point: importlib.metadata.EntryPoint) -> bool:
    return entry_point.dist is not None and entry_point.dist.name == CORE_DISTRIBUTION


def _is_selected(entry_point: importlib.metadata.EntryPoint) -> bool:
    return SELECTION_VARIABLE not in os.environ or _is_core(entry_point) or entry_point.name in _selection()


def _selection() -> set[str]:
    return {name.strip() for name in os.environ[SELECTION_VARIABLE].split(",")} - {""}


def is_of(package: str, distribution: str) -> bool:
    """Whether a package, `name version`, is the distribution of that name, however it is spelt."""
    return canonicalize_name(package.split()[0]) == canonicalize_name(distribution)


def _package_of(entry_point: importlib.metadata.EntryPoint) -> str:
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist is not None else "unknown package"


@cache
def get_plugin_manager() -> PluginManager:
    """The process-wide plugin manager, made on first use."""
    return PluginManager()
