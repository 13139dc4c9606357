"""`adaptkit plugins`: what is installed, from where, and with which options; `new` and `check` for those who write."""

from __future__ import annotations

from typing import Any

import click
from pydantic.fields import FieldInfo
from rich.console import Group
from rich.table import Table

from adaptkit.cli.group import NamingGroup
from adaptkit.cli.output import json_option
from adaptkit.cli.plugins_check import check
from adaptkit.cli.plugins_new import new
from adaptkit.cli.terminal import Console, echo_json, styled
from adaptkit.hookspecs import Component
from adaptkit.plugin_manager import BrokenPlugin, PluginManager, get_plugin_manager


@click.group(cls=NamingGroup, invoke_without_command=True)
@json_option("Print only JSON, with each component's options as JSON schema.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List what installed plugins offer, with its origin."""
    if context.invoked_subcommand is not None:
        return
    manager = get_plugin_manager()
    if as_json:
        echo_json(_as_data(manager))
        return
    console = Console()
    console.print(_component_table(manager.components()))
    if manager.broken:
        console.print(_broken_table(list(manager.broken.values())))


plugins.add_command(new)
plugins.add_command(check)


def _as_data(manager: PluginManager) -> dict[str, Any]:
    return {
        "components": [_component_data(component) for component in manager.components()],
        "broken": [
            {"plugin": b.name, **_package_and_version(b.package), "reason": b.reason} for b in manager.broken.values()
        ],
    }


def _component_data(component: Component) -> dict[str, Any]:
    return {
        "name": component.name,
        "kind": component.kind,
        "plugin": component.plugin,
        **_package_and_version(component.package),
        "description": component.description,
        "pattern": component.pattern,
        "options": _schema(component),
    }


def _schema(component: Component) -> dict[str, Any]:
    try:
        return component.options.model_json_schema()
    except Exception as error:  # one plugin's odd type must not hide the others
        return {"error": f"{type(error).__name__}: {error}"}


def _package_and_version(package: str) -> dict[str, str | None]:
    name, _, version = package.rpartition(" ")
    return {"package": name, "version": version}


def _component_table(components: list[Component]) -> Table:
    table = Table(title="Installed components", title_justify="left", show_lines=True)
    for header in ("name", "kind", "package"):
        table.add_column(header, overflow="fold")
    table.add_column("description and options", overflow="fold", ratio=1)
    for component in components:
        options = [styled(_option(name, field), "cyan") for name, field in component.options.model_fields.items()]
        table.add_row(component.name, component.kind, component.package, Group(component.description, *options))
    return table


def _option(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"{name} (required)"
    try:
        return f"{name} = {field.get_default(call_default_factory=True)!r}"
    except Exception as error:  # a plugin's own code computes it
        return f"{name} (its default raises {type(error).__name__})"


def _broken_table(broken: list[BrokenPlugin]) -> Table:
    table = Table(title="Plugins that failed to load", title_justify="left", style="red", title_style="bold red")
    for header in ("plugin", "package", "reason"):
        table.add_column(header, overflow="fold", style="red")
    for plugin in broken:
        table.add_row(plugin.name, plugin.package, plugin.reason)
    return table
