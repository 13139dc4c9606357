"""Discovery of plugins through entry points, and lookup of what they registered, by kind and name.

A plugin that cannot be imported, or whose hook raises, is kept aside and named; it stops a run only when
the run needs something that no healthy plugin offers. Set `ADAPTKIT_PLUGINS` to a comma-separated list of
entry-point names to load only those beside adaptkit's own (empty: none).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal, overload

import pluggy
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from adaptkit import hookspecs
from adaptkit.errors import DISTRIBUTION, PluginError, inert, unknown_name, wrong_type
from adaptkit.hookspecs import (
    COMPONENT_TYPES,
    CONTRACT_VERSION,
    GROUP,
    KINDS,
    Component,
    DataSourceComponent,
    EncoderComponent,
    EvaluationTaskComponent,
    InsertionPolicyComponent,
    ModalityComponent,
    Options,
    ProjectorComponent,
)

SELECTION_VARIABLE = "ADAPTKIT_PLUGINS"
THIS_PROCESS = "this process"
"""The package of what `PluginManager.add` took in."""


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
        self._components: dict[tuple[str, str], Component] = {}
        self._modules: dict[str, Any] = {}
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
        name, package = entry_point.name, _package_of(entry_point)
        if name in self.plugins or name in self.broken:
            self._refuse_namesake(name, package)
            return  # an editable and a regular install of one distribution may both be listed
        try:
            module = entry_point.load()
            components = _collect(module, name, package)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin raises, sys.exit too, must not stop the others
            reason = str(error) if isinstance(error, PluginError) else inert(f"{type(error).__name__}: {error}")
            self.broken[name] = BrokenPlugin(name, package, reason)
            return
        self._take_in(module, components, name, package)

    def add(self, plugin: Any, name: str) -> None:
        """Take in a plugin that is not an installed package yet, for the life of this process.

        Args:
            plugin: A module, or any object with hook functions.

        Raises:
            PluginError: The name is taken, the plugin is made for another contract, a hook or a field does not exist or
                does not fit, or it registers what another plugin has registered.
        """
        if name in self.plugins or name in self.broken:
            raise PluginError(f"a plugin named {name!r} is loaded already.")
        self._take_in(plugin, _collect(plugin, name, THIS_PROCESS), name, THIS_PROCESS)

    def _refuse_namesake(self, name: str, package: str) -> None:
        known = self.plugins[name] if name in self.plugins else self.broken[name].package
        if known.split()[0] != package.split()[0]:
            raise PluginError(f"two packages name a plugin {name!r}: {known} and {package}. Uninstall one of them.")

    def _take_in(self, module: Any, components: list[Component], plugin: str, package: str) -> None:
        """List what a plugin registered: all of it, or nothing where a name is taken."""
        added: dict[tuple[str, str], Component] = {}
        for component in components:
            key = (component.kind, component.name)
            if key in added:
                raise PluginError(f"the plugin {plugin!r} ({package}) registers the {key[0]} {key[1]!r} twice.")
            taken = self._components.get(key)
            if taken is not None:
                raise PluginError(
                    f"two plugins register the {component.kind} {component.name!r}: {taken.plugin} "
                    f"({taken.package}) and {component.plugin} ({component.package}). Uninstall one, or list the "
                    f"plugins to load in {SELECTION_VARIABLE}."
                )
            added[key] = component
        self.plugins[plugin], self._modules[plugin] = package, module
        self._components |= added

    def module_name(self, plugin: str) -> str | None:
        """The module in which a plugin's hooks are, where it is one."""
        module = self._modules.get(plugin)
        return module.__name__ if isinstance(module, ModuleType) else None

    def names(self, kind: str) -> list[str]:
        """Names registered for a kind, sorted."""
        return sorted(name for component_kind, name in self._components if component_kind == kind)

    def components(self, kind: str | None = None) -> list[Component]:
        """What is registered, of one kind or of all, in the order of kinds and names."""
        order = list(KINDS)
        found = [c for c in self._components.values() if kind in (None, c.kind)]
        return sorted(found, key=lambda c: (order.index(c.kind), c.name))

    @overload
    def get(self, kind: Literal["modality"], name: str) -> ModalityComponent: ...
    @overload
    def get(self, kind: Literal["encoder"], name: str) -> EncoderComponent: ...
    @overload
    def get(self, kind: Literal["projector"], name: str) -> ProjectorComponent: ...
    @overload
    def get(self, kind: Literal["insertion policy"], name: str) -> InsertionPolicyComponent: ...
    @overload
    def get(self, kind: Literal["data source"], name: str) -> DataSourceComponent: ...
    @overload
    def get(self, kind: Literal["evaluation task"], name: str) -> EvaluationTaskComponent: ...
    @overload
    def get(self, kind: str, name: str) -> Component: ...

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


def _collect(module: Any, plugin: str, package: str) -> list[Component]:
    """What a plugin registers; each is called by a pluggy manager of its own, so that nothing of a broken one stays.

    Raises:
        PluginError: It is made for another contract, or what it registers does not fit its kind.
    """
    _check_contract(getattr(module, "ADAPTKIT_CONTRACT", 1), plugin, package)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin)
    _check_hooks(manager, module)
    components: list[Component] = []
    for component_type in COMPONENT_TYPES:
        register = partial(_register, components, component_type, plugin, package)
        getattr(manager.hook, component_type.hook)(register=register)
    return components


def _check_contract(made_for: Any, plugin: str, package: str) -> None:
    if type(made_for) is not int:
        raise PluginError(
            f"ADAPTKIT_CONTRACT of the plugin {plugin!r} must be the number of the contract that it is made for, an "
            f"integer; got {made_for!r}. The installed adaptkit has contract {CONTRACT_VERSION}."
        )
    if made_for != CONTRACT_VERSION:
        newer = made_for > CONTRACT_VERSION
        own = plugin if package == THIS_PROCESS else package.split()[0]
        raise PluginError(
            f"the plugin {plugin!r} is made for contract {made_for!r} of adaptkit.interfaces, and the installed "
            f"adaptkit has contract {CONTRACT_VERSION}: upgrade {DISTRIBUTION if newer else own}"
        )


def _check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    """Refuse hooks that would never be called, or not with what they ask for."""
    known = list(KINDS.values())
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        callers = {name: caller for name, caller in vars(manager.hook).items() if not name.startswith("_")}
        unknown = next(name for name, caller in callers.items() if not caller.has_spec())
        raise PluginError(unknown_name("hook", unknown, known)) from error
    for hook in known:
        if callable(getattr(module, hook, None)) and manager.parse_hookimpl_opts(module, hook) is None:
            raise PluginError(f"{hook} is not marked as a hook: write @adaptkit.hookimpl above it.")


def _register(
    components: list[Component],
    component_type: type[Component],
    plugin: str,
    package: str,
    /,
    *unnamed: Any,
    **values: Any,
) -> None:
    """What hooks are given as `register`, from the fifth argument on."""
    hook = component_type.hook
    if unnamed:
        raise PluginError(f"{hook}: register takes fields by keyword, register(name=..., ...); got {unnamed[0]!r}")
    try:
        components.append(component_type.registered(plugin, package, values))
    except (TypeError, PluginError) as error:
        raise PluginError(f"{hook}: {error}") from error


def _problem(component: Component, details: dict[str, Any]) -> str:
    """One of pydantic's complaints in our words: an unknown option comes with the nearest known one."""
    where = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden" and len(details["loc"]) == 1:
        return unknown_name("option", where, component.options.model_fields)
    message = str(details["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _is_core(entry_point: importlib.metadata.EntryPoint) -> bool:
    return entry_point.dist is not None and entry_point.dist.name == DISTRIBUTION


def _is_selected(entry_point: importlib.metadata.EntryPoint) -> bool:
    return SELECTION_VARIABLE not in os.environ or _is_core(entry_point) or entry_point.name in _selection()


def _selection() -> set[str]:
    return {name.strip() for name in os.environ[SELECTION_VARIABLE].split(",")} - {""}


def is_of(package: str, distribution: str) -> bool:
    """Whether a package, `name version`, is the distribution of that name, however it is spelt."""
    return canonicalize_name(package.split()[0]) == canonicalize_name(distribution)


def _package_of(entry_point: importlib.metadata.EntryPoint) -> str:
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist is not None else "unknown package"


_of_the_process: PluginManager | None = None


def get_plugin_manager() -> PluginManager:
    """The process-wide plugin manager, made on first use."""
    global _of_the_process
    if _of_the_process is None:
        _of_the_process = PluginManager()
    return _of_the_process


def set_plugin_manager(manager: PluginManager | None) -> PluginManager | None:
    """Replace the process-wide plugin manager; with None, the next use looks for plugins anew.

    Returns:
        The one before.
    """
    global _of_the_process
    before, _of_the_process = _of_the_process, manager
    return before


@contextmanager
def using(manager: PluginManager) -> Iterator[None]:
    """Make another plugin manager the process-wide one for a while."""
    before = set_plugin_manager(manager)
    try:
        yield
    finally:
        set_plugin_manager(before)
