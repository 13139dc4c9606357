"""`adaptkit compare`: variants trained alike, in one table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from adaptkit.cli.output import FOLDER, json_option
from adaptkit.cli.terminal import Console, TextColumn, echo_json, styled

if TYPE_CHECKING:
    from adaptkit.compare.aggregation import Comparison
    from adaptkit.compare.running import Outcome, Planned, Watcher

DEFAULT_OUTPUT = Path("runs") / "compare"


@click.command()
@click.argument("arguments", metavar="RECIPE... [a.b.c=value]...", nargs=-1)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each variant.")
@click.option(
    "--output",
    type=FOLDER,
    default=DEFAULT_OUTPUT,
    show_default=True,
    help="Folder of runs, tables and plots; runs in it are kept or resumed.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs at a time; with more than one, each computes in one thread.",
)
@click.option("--table", "tables", multiple=True, metavar="TITLE=NAME,NAME", help="A further table of some variants.")
@json_option()
def compare(
    arguments: tuple[str, ...], seeds: int, output: Path, jobs: int, tables: tuple[str, ...], as_json: bool
) -> None:
    """Train and evaluate variants, several seeds each, and put them in one table with plots.

    Each RECIPE is a variant. Settings of all of them are overridden by dotted keys: stage_defaults.max_steps=100.
    After an interruption, run the same command again: finished runs are kept, and an interrupted one is resumed.
    """
    from adaptkit.compare import comparing

    paths, overrides = split_arguments(arguments)
    console = Console(stderr=as_json)
    with watching(console, len(paths) * seeds) as watcher:
        comparison = comparing.compare(
            paths,
            output,
            num_seeds=seeds,
            overrides=overrides,
            jobs=jobs,
            tables=tables,
            watcher=watcher,
            command=shlex.join(["adaptkit", *sys.argv[1:]]),
        )
    if as_json:
        echo_json(comparison.to_json())
    else:
        _show(comparison, output, console)
    if comparison.failed:
        sys.exit(1)


def split_arguments(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Recipe files, and overrides: what has an equals sign and is not a file."""
    overrides = [text for text in arguments if "=" in text and not Path(text).is_file()]
    return [Path(text) for text in arguments if text not in overrides], overrides


@contextmanager
def watching(console: Console, num_runs: int) -> Iterator[Watcher]:
    """Show what runs and what has ended: a line for each run, and in a terminal what runs now."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

    from adaptkit.compare.running import Watcher

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        overall = progress.add_task("runs", total=num_runs)
        tasks: dict[str, TaskID] = {}

        def started(run: Planned) -> None:
            total = sum(max(stage.max_steps, 0) for stage in run.recipe.stages) or None
            tasks[run.title] = progress.add_task(f"  {run.title}: starting", total=total)

        def stepped(run: Planned, stage: str, step: int) -> None:
            if stage:
                earlier = [s.name for s in run.recipe.stages].index(stage)
                done = sum(max(s.max_steps, 0) for s in run.recipe.stages[:earlier])
                progress.update(tasks[run.title], completed=done + step, description=f"  {run.title}: {stage}")

        def ended(outcome: Outcome) -> None:
            progress.advance(overall)
            if outcome.run.title in tasks:
                progress.remove_task(tasks.pop(outcome.run.title))
            console.print(_outcome_line(outcome), highlight=False, soft_wrap=True)

        yield Watcher(started, stepped, ended)


def _outcome_line(outcome: Outcome) -> Text:
    title = outcome.run.title
    if outcome.kept:
        return styled(f"{title}: finished earlier, kept")
    if outcome.reason:
        return styled(f"{title}: failed: ", "red").append(styled(outcome.reason, "default"))
    return styled(f"{title}: finished in {outcome.seconds:.0f} s")


def _show(comparison: Comparison, output: Path, console: Console) -> None:
    from rich.table import Table

    from adaptkit.compare.rendering import HTML_FILE, MARKDOWN_FILE, sentences, short_grids

    for grid in short_grids(comparison):
        table = Table(title=grid.title, title_justify="left", title_style="bold")
        table.add_column(grid.columns[0])
        for column in grid.columns[1:]:
            table.add_column(column, justify="right")
        for cells in grid.rows:
            table.add_row(*cells)
        console.print()
        console.print(table)
    for sentence in sentences(comparison):
        console.print(sentence, highlight=False)
    for row in comparison.rows:
        for failure in row.failures:
            console.print(styled("failed:", "red"), f"{row.name}, seed {failure.seed}: {failure.reason}")
    console.print(f"report: {output / HTML_FILE}", soft_wrap=True)
    console.print(f"tables: {output / MARKDOWN_FILE}", soft_wrap=True)
