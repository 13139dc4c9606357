"""`adaptkit doctor`: what this machine has, what is missing, and what each missing thing is for."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adaptkit.errors import RunError

MARKS = {"ok": "[green]ok[/]", "missing": "[dim]missing[/]"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def doctor(as_json: bool) -> None:
    """Report what this machine has, what is missing and what for.

    Exit code 0 unless something that adaptkit needs is missing, too old or broken. An optional package that
    is missing is no error.
    """
    report = examine()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    if report["problems"]:
        raise RunError("\n".join(report["problems"]))


def examine() -> dict[str, Any]:
    """Gather the report: sections as `adaptkit doctor --json` prints them, and what must be mended."""
    from adaptkit.cli import environment

    report: dict[str, Any] = {
        "required": environment.required_packages(),
        "devices": environment.devices(),
        "optional": environment.optional_packages(),
        "plugins": environment.plugins(),
        "world": environment.world_models(),
    }
    report["problems"] = _problems(report)
    return report


def _problems(report: dict[str, Any]) -> list[str]:
    problems = [
        f"{row['name']} {row['version'] or 'is missing'}: adaptkit needs {row['supported']}; "
        f"run `pip install '{row['name']}{row['supported']}'`."
        for row in report["required"]
        if row["status"] != "ok"
    ]
    if "problem" in report["devices"]:
        problems.append(report["devices"]["problem"])
    problems += [
        f"plugin {name} ({plugin['package']}) does not load: {plugin['problem']}. Mend or uninstall it."
        for name, plugin in report["plugins"]["broken"].items()
    ]
    problems += [
        f"the built-in {row['name']} is not at {row['path']}: reinstall adaptkit, or run "
        f"`adaptkit world build {row['name']}`."
        for row in report["world"]
        if row["status"] != "ok"
    ]
    return problems


def _show(report: dict[str, Any]) -> None:
    console = Console()
    required = _table("Required", "package", "version", "supported", "status")
    for row in report["required"]:
        required.add_row(row["name"], row["version"] or "", row["supported"], _mark(row, required=True))
    optional = _table("Optional", "package", "version", "status", "what it is for", "to install")
    for row in report["optional"]:
        wanted = f" (supported: {row['supported']})" if row["status"] == "unsupported" else ""
        note = row.get("problem", row["purpose"] + wanted)
        install = "" if row["status"] == "ok" else row["install"]
        optional.add_row(row["name"], row["version"] or "", _mark(row), escape(note), escape(install))
    plugins = _table("Plugins", "plugin", "package", "status", "offers")
    for name, plugin in report["plugins"]["loaded"].items():
        offers = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin["offers"].items())
        plugins.add_row(name, plugin["package"], MARKS["ok"], escape(offers))
    for name, plugin in report["plugins"]["broken"].items():
        plugins.add_row(name, plugin["package"], "[red]broken[/]", escape(plugin["problem"]))
    world = _table("Built-in world", "model", "size", "status", "path")
    for row in report["world"]:
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        world.add_row(row["name"], size, _mark(row, required=True), escape(row["path"]))
    for table in (required, optional, plugins, world):
        console.print(table)
    console.print(_describe_devices(report["devices"]))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _mark(row: dict[str, Any], required: bool = False) -> str:
    status = row["status"]
    if required and status != "ok":
        return f"[red]{status}[/]"
    return MARKS.get(status, f"[yellow]{status}[/]")


def _describe_devices(devices: dict[str, Any]) -> str:
    cores = f"[bold]Devices[/] {devices['cpu_cores']} processor cores"
    if "problem" in devices:
        return cores
    names = [f"{a['name']} ({a['memory_bytes'] / 2**30:.0f} GiB)" for a in devices["accelerators"]]
    names += ["Apple MPS"] if devices["mps"] else []
    return f"{cores}, {devices['torch_threads']} torch threads; " + (
        ", ".join(names) or "no GPU: training runs on the CPU"
    )
