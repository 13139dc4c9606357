"""`adaptkit verify`: what a checkpoint claims, recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptkit.cli.output import json_option, trust_option
from adaptkit.cli.terminal import Console, echo_json, styled
from adaptkit.errors import RunError

if TYPE_CHECKING:
    from rich.table import Table

    from adaptkit.run.verify import Finding

STYLES = {"holds": "green", "differs": "bold red", "not checked": "yellow"}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--base", show_default="as the checkpoint says", help="Folder or hub id of the base.")
@click.option("--workflow", help="Verify only this workflow of a run.")
@json_option()
@trust_option()
def verify(checkpoint: Path, base: str | None, workflow: str | None, as_json: bool, trust_remote_code: bool) -> None:
    """Recompute what the model card of CHECKPOINT claims, a workflow's folder or hub id or a run directory.

    Base and encoders are hashed again. The files must hold the workflow's own tensors, bit by bit, and nothing else
    that is loaded. Text is compared with a process that never imports adaptkit. README, settings and scores must say
    what the facts say. Exit code 1 if something differs.
    """
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.cli.reporter import ConsoleReporter
    from adaptkit.model.run_folders import located
    from adaptkit.run.verify import verify_checkpoint

    quiet_libraries()
    if base is not None:
        _check_base(base)
    found = verify_checkpoint(
        located(checkpoint),
        base=base,
        workflow=workflow,
        trust_remote_code=trust_remote_code,
        reporter=ConsoleReporter(Console(stderr=True)),
    )
    differing = [f"{name}: {one.claim}" for name, all in found.items() for one in all if one.status == "differs"]
    if as_json:
        workflows = {name: [asdict(finding) for finding in findings] for name, findings in found.items()}
        echo_json({"verified": not differing, "workflows": workflows})
    else:
        for name, findings in found.items():
            Console().print(_table(name, findings))
    if differing:
        raise RunError(f"{checkpoint} is not what its card claims: {len(differing)} differ: {'; '.join(differing)}.")


def _check_base(base: str) -> None:
    from adaptkit.files.hub import is_hub_id
    from adaptkit.files.paths import WORLD_PREFIX

    if not (Path(base).expanduser().is_dir() or base.startswith(WORLD_PREFIX) or is_hub_id(base)):
        raise click.BadParameter(f"{base} is neither a folder nor a hub id.", param_hint="--base")


def _table(name: str, findings: Sequence[Finding]) -> Table:
    from rich.table import Table

    table = Table(title=f"workflow {name}", title_justify="left", title_style="bold")
    for column in ("claim", "", "compared, or what differs"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.claim, styled(finding.status, STYLES[finding.status]), "\n".join(finding.details))
    return table
