"""Checks of what holds for every registered component."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Generic, Self, TypeVar, cast

from adaptkit.errors import AdaptkitError, PluginError
from adaptkit.hookspecs import Component, Options
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing.checks import Check
from adaptkit.testing.examples import Example
from adaptkit.testing.network import no_network
from adaptkit.testing.requirements import ContractError, require, require_refused

NOWHERE = "no-such-folder/no-such-item"

C = TypeVar("C", bound=Component)


def check_component(
    kind: str, name: str, options: Mapping[str, Any], *, manager: PluginManager | None = None
) -> tuple[Component, Options]:
    """Check that something is registered, and that its options are typed and closed.

    Args:
        kind: One of `adaptkit.hookspecs.KINDS`.
        name: What recipes call it.
        options: Valid options.
        manager: Where to look it up; all installed plugins by default.

    Returns:
        The component and its validated options.

    Raises:
        ContractError: It breaks its contract.
    """
    manager = manager or get_plugin_manager()
    try:
        component = manager.get(kind, name)
        validated = manager.options(kind, name, options)
    except PluginError as error:
        raise ContractError(str(error)) from error
    check_registration(component)
    require_refused(
        lambda: manager.options(kind, name, {**options, "no_such_option": 1}),
        PluginError,
        f"an unknown option of the {kind} {name!r}",
        naming="no_such_option",
    )
    rebuilt = component.options.model_validate(validated.model_dump(mode="json"))
    require(rebuilt == validated, f"options of the {kind} {name!r} change when written to a file and read again")
    return component, validated


def check_registration(component: Component) -> None:
    """Check what needs no valid options.

    Raises:
        ContractError: It breaks its contract.
    """
    named = f"the {component.kind} {component.name!r}"
    require(bool(component.description.strip()), f"{named} is registered without a description")
    require(component.options.model_config.get("extra") == "forbid", f"an unknown option of {named} is accepted")
    untyped = [key for key, field in component.options.model_fields.items() if field.annotation in (None, Any)]
    require(not untyped, f"the option {', '.join(untyped)} of {named} is typed Any: say what it takes")
    component.options.model_json_schema()
    if component.pattern is None:
        return
    require(not re.fullmatch(component.pattern, ""), f"the pattern {component.pattern!r} of {named} serves any name")


class ComponentChecks(Generic[C]):
    """The contract of one component; those of most kinds extend it.

    Args:
        kind: One of `adaptkit.hookspecs.KINDS`.
        name: What recipes call it.
        example: What to try it with.
        manager: As in `check_component`.
    """

    def __init__(self, kind: str, name: str, example: Example, manager: PluginManager | None = None) -> None:
        self.kind, self.name, self.example = kind, name, example
        self.manager = manager or get_plugin_manager()

    def checks(self) -> Iterator[Check]:
        """In an order in which the first failure is the most telling."""
        yield Check("registration and options", self.registration, essential=True)

    def registration(self) -> None:
        check_component(self.kind, self.name, self.example.options, manager=self.manager)

    @cached_property
    def component(self) -> C:
        return cast(C, self.manager.get(self.kind, self.name))

    @cached_property
    def options(self) -> Options:
        return self.manager.options(self.kind, self.name, self.example.options)

    @contextmanager
    def without_network(self, what: str) -> Iterator[None]:
        """Refuse the network; what else is raised inside is the matter of the other checks."""
        with no_network(f"{what} the {self.kind} {self.name!r}"), suppress(Exception):
            yield

    def missing_path(self, use: Callable[[Options], Any], *context: Any) -> str | None:
        """A path that is not there is reported by name, and using it is an `AdaptkitError`."""
        if "path" not in self.component.options.model_fields:
            return "it has no option `path`"
        absent = self.options.model_copy(update={"path": f"/{NOWHERE}"})
        report = self.component.missing(absent, *context)
        named = report is not None and NOWHERE in report
        require(named, f"missing() does not name a path that is not there: {report!r}")
        require_refused(lambda: use(absent), AdaptkitError, "a path that is not there", naming=NOWHERE)
        return None

    def of_stand_in(self, options: Any, items: Sequence[Any] = ()) -> Self:
        """The same for what `stand_in` wrote."""
        sound = isinstance(options, self.component.options)
        require(sound, "stand_in must return options of the registered type")
        return type(self)(self.kind, self.name, Example(options.model_dump(), items), self.manager)
