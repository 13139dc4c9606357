"""`adaptkit plugins check`: the contract checks of a plugin as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table

from adaptkit.cli.output import json_option
from adaptkit.cli.terminal import Console, echo, echo_json, styled

if TYPE_CHECKING:
    from adaptkit.testing import CheckResult

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option("Print only JSON: one object a check.")
def check(names: Sequence[str], as_json: bool) -> None:
    """Check that a plugin keeps adaptkit's contract.

    NAME is an entry point, a package or a component that `adaptkit plugins` lists. Everything it registers is tried on
    the small examples that it brings, without a network. Exit code 1 if a check failed.
    """
    # Before the hub client is imported: what asks the hub all the same then fails at once, instead of trying again
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.plugin_manager import get_plugin_manager
    from adaptkit.testing.plugins import check_plugin, select

    quiet_libraries()
    manager = get_plugin_manager()
    for name in names:  # a misspelt one is reported before the checks of the others have run
        select(manager, name)
    results: list[CheckResult] = []
    with Console(stderr=True).status("") as status:
        for name in names:
            results += check_plugin(
                name, manager=manager, progress=lambda what: status.update(styled(f"Checking {what}"))
            )
    failed = [result for result in results if result.outcome == "failed"]
    if as_json:
        echo_json([result.as_dict() for result in results])
    else:
        Console().print(_table(results))
        echo(f"{len(failed)} of {len(results)} checks failed." if failed else f"All {len(results)} checks done.")
    if failed:
        raise click.exceptions.Exit(1)


def _table(results: Sequence[CheckResult]) -> Table:
    table = Table()
    for header in ("component", "check", "result"):
        table.add_column(header, overflow="fold")
    table.add_column("message", overflow="fold", ratio=1)
    before = ""
    for result in results:
        component = f"{result.kind} {result.name}"
        if before not in ("", component):
            table.add_section()
        outcome = styled(result.outcome, _STYLES[result.outcome])
        shown = "" if component == before else component
        table.add_row(shown, result.check, outcome, result.message)
        before = component
    return table
