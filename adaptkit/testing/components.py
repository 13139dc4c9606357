"""Checks of what holds for every registered component."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adaptkit.errors import PluginError
from adaptkit.hookspecs import Component, Options
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing.requirements import ContractError, require, require_refused


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
    """Check what can be told of a component without valid options.

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
