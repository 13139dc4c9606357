"""`adaptkit doctor`: what this machine has, what is missing, and what each missing thing is for."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from adaptkit.cli.output import json_option
from adaptkit.cli.terminal import Console, echo_json, styled
from adaptkit.errors import DISTRIBUTION, RunError, join_lines

STYLES = {"ok": "green", "missing": "dim"}


@click.command()
@json_option()
def doctor(as_json: bool) -> None:
    """Report what this machine has, what is missing, and what each missing package is for.

    The exit code is 0 unless something that adaptkit needs is missing, too old or broken. A missing optional package is
    not an error.
    """
    report = examine()
    if as_json:
        echo_json(report)
    else:
        _show(report)
    if report["problems"]:
        raise RunError(join_lines(report["problems"]))


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
    report["problems"] = _problems(report, environment.foreign_package())
    return report


def _problems(report: dict[str, Any], foreign: str | None) -> list[str]:
    problems = [
        f"{row['name']} {row['version'] or 'is missing'}: adaptkit needs {row['supported']}; "
        f"run `pip install '{row['name']}{row['supported']}'`."
        for row in report["required"]
        if row["status"] != "ok"
    ]
    if foreign is not None:
        problems.append(
            f"the package adaptkit {foreign} is installed: another project's, or ours from before it "
            f"was called {DISTRIBUTION}. It writes into the same folder. Run `pip uninstall adaptkit`, then "
            f"`pip install --force-reinstall --no-deps {DISTRIBUTION}`."
        )
    if "problem" in report["devices"]:
        problems.append(report["devices"]["problem"])
    problems += [
        f"plugin {name} ({plugin['package']}) does not load: {plugin['problem']}. Fix or uninstall it."
        for name, plugin in report["plugins"]["broken"].items()
    ]
    problems += [
        f"the built-in {row['name']} is not at {row['path']}: reinstall {DISTRIBUTION}, or run "
        f"`adaptkit world build {row['name']}`."
        for row in report["world"]
        if row["status"] != "ok"
    ]
    return problems


def _show(report: dict[str, Any]) -> None:
    console = Console()
    required = _table("Required", "package", "version", "supported", "status")
    for row in report["required"]:
        required.add_row(row["name"], row["version"] or "", row["supported"], _mark(row["status"], required=True))
    optional = _table("Optional", "package", "version", "status", "what it is for", "to install")
    for row in report["optional"]:
        wanted = f" (supported: {row['supported']})" if row["status"] == "unsupported" else ""
        note = row.get("problem", row["purpose"] + wanted)
        install = "" if row["status"] == "ok" else row["install"]
        optional.add_row(row["name"], row["version"] or "", _mark(row["status"]), note, install)
    plugins = _table("Plugins", "plugin", "package", "status", "offers")
    for name, plugin in report["plugins"]["loaded"].items():
        offers = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin["offers"].items())
        plugins.add_row(name, plugin["package"], _mark("ok"), offers)
    for name, plugin in report["plugins"]["broken"].items():
        plugins.add_row(name, plugin["package"], _mark("broken", required=True), plugin["problem"])
    world = _table("Built-in world", "model", "size", "status", "path")
    for row in report["world"]:
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        world.add_row(row["name"], size, _mark(row["status"], required=True), row["path"])
    for table in (required, optional, plugins, world):
        console.print(table)
    console.print(styled("Devices", "bold"), _describe_devices(report["devices"]))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _mark(status: str, required: bool = False) -> Text:
    return styled(status, "red" if required and status != "ok" else STYLES.get(status, "yellow"))


def _describe_devices(devices: dict[str, Any]) -> str:
    cores = f"{devices['cpu_cores']} processor cores"
    if "problem" in devices:
        return cores
    names = [f"{a['name']} ({a['memory_bytes'] / 2**30:.0f} GiB)" for a in devices["accelerators"]]
    names += ["Apple MPS"] if devices["mps"] else []
    return f"{cores}, {devices['torch_threads']} torch threads; " + (
        ", ".join(names) or "no GPU: training runs on the CPU"
    )
