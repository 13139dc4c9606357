"""`adaptkit train`: all stages of a recipe."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.group import DEBUG
from adaptkit.cli.output import FOLDER
from adaptkit.cli.prediction_options import parse_options, prediction_options, refuse_options
from adaptkit.cli.terminal import Console, echo_message, echo_text
from adaptkit.processes import group as processes
from adaptkit.processes import launch

if TYPE_CHECKING:
    from adaptkit.recipe import Recipe
    from adaptkit.run.runner import Run


_OF_THE_RUN = {
    "gpus": "--num-processes",
    "strategy": "accelerator.strategy",
    "batch_size": "stages.STAGE.per_device_train_batch_size",
    "length": "stages.STAGE.max_length",
}
"""What options of predictions are called where they change a run."""


@click.command()
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[a.b.c=value]...", nargs=-1)
@click.option("--output", type=FOLDER, show_default="runs/NAME", help="Run directory.")
@click.option("--resume", metavar="auto|DIR", help="Continue the run in the run directory, or from a checkpoint.")
@click.option(
    "--dry-run", is_flag=True, help="Show the recipe, what trains, an example, memory and time; train nothing."
)
@click.option("--rehearse", is_flag=True, help="Try the whole recipe on tiny stand-ins of its models and data.")
@click.option(
    "--num-processes",
    type=click.IntRange(min=1),
    show_default="accelerator.num_processes, else one for each visible GPU",
    help="Processes to start on this machine.",
)
@prediction_options
@click.pass_context
def train(
    context: click.Context,
    /,
    recipe_path: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: str | None,
    dry_run: bool,
    rehearse: bool,
    num_processes: int | None,
    **prediction: Any,
) -> None:
    """Run all stages of RECIPE: train, check that the base is unchanged, evaluate, report.

    Settings of the recipe are overridden by dotted keys: stages.align.max_steps=100.
    """
    from adaptkit.recipe import load_recipe

    if dry_run and rehearse:
        raise click.UsageError("--dry-run and --rehearse exclude each other.")
    if rehearse and (num_processes or processes.num_processes()) > 1:
        raise click.UsageError("--rehearse runs in one process, whatever the recipe asks for.")
    if not dry_run:
        refuse_options(prediction, "only --dry-run predicts.", _OF_THE_RUN)
    started = time.monotonic()
    if num_processes is not None:
        overrides = (*overrides, f"accelerator.num_processes={num_processes}")
    recipe = load_recipe(recipe_path, overrides)
    if not (dry_run or rehearse):
        _start(context, recipe, [str(recipe_path), *overrides, *_options(output, resume)])
    launch.end_with_launcher()
    console = Console(quiet=not processes.is_main_process())
    if dry_run:
        from adaptkit.cli.dry_run import show_dry_run

        if not show_dry_run(recipe, console, parse_options(prediction)):
            raise click.exceptions.Exit(2)
    elif rehearse:
        _rehearse(recipe, console)
    else:
        _train(recipe, output, resume, console, started)


def _options(output: Path | None, resume: str | None) -> list[str]:
    given = {"--output": output, "--resume": resume}
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def _start(context: click.Context, recipe: Recipe, arguments: list[str]) -> None:
    """Do this command in as many processes as the recipe starts here, and end as they do; returns where it is one."""
    from adaptkit.run.requirements import require_all
    from adaptkit.run.starting import plan_start

    start = plan_start(recipe)
    if processes.is_launched():
        return
    require_all(recipe, start.strategy)  # once, rather than in every process
    for note in start.notes:
        echo_text(note)
    if start.num_processes == 1:
        return
    given = [] if recipe.accelerator.num_processes else [f"accelerator.num_processes={start.num_processes}"]
    debug = [DEBUG] if context.find_root().meta[DEBUG] else []
    outcome = launch.launch(start.num_processes, ["train", *debug, *arguments, *given])
    if outcome.message is not None:
        echo_message("Error: " if outcome.is_error else "", outcome.message)
    raise click.exceptions.Exit(outcome.exit_code)


def _train(recipe: Recipe, output: Path | None, resume: str | None, console: Console, started: float) -> None:
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.cli.reporter import ConsoleReporter
    from adaptkit.cli.results_tables import identity_line, render_results_table
    from adaptkit.run.runner import BAD_SAMPLES_FILE, train_recipe
    from adaptkit.run.scoring import REPORT_FILE, evaluate_run, require_unchanged_text

    quiet_libraries()
    directory = output or Path(recipe.output_dir or Path("runs") / recipe.name)
    run = train_recipe(recipe, directory, ConsoleReporter(console), resume=resume)
    if not processes.is_main_process():
        return
    results = evaluate_run(run, started, shlex.join(["adaptkit", *sys.argv[1:]]))
    console.print()
    table = render_results_table(results)
    if table.rows:
        console.print(table)
    else:  # a recipe may have no evaluation
        console.print(identity_line(results["text"]), highlight=False)
    _print_skipped(run, directory / BAD_SAMPLES_FILE, console)
    console.print(f"report: {directory / REPORT_FILE}", soft_wrap=True)
    for name in run.workflows:
        console.print(f"workflow {name}: {directory / 'final' / name}", soft_wrap=True)
    require_unchanged_text(results, recipe)


def _print_skipped(run: Run, path: Path, console: Console) -> None:
    """Say how many samples of each dataset were bad, in yellow where a dataset has more than the recipe tolerates."""
    from adaptkit.data.bad_samples import count_bad_samples

    counts = count_bad_samples(path)
    sizes = {name: len(source) for name, source in run.sources.items() if counts[name]}
    found = ", ".join(f"{name} {counts[name]:,} of {size:,}" for name, size in sizes.items())
    many = any(counts[name] > run.recipe.max_bad_fraction * size for name, size in sizes.items())
    if found:
        console.print(f"skipped samples: {found}; see {path}", style="yellow" if many else None)


def _rehearse(recipe: Recipe, console: Console) -> None:
    from rich.table import Table

    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.cli.reporter import ConsoleReporter
    from adaptkit.cli.results_tables import identity_line
    from adaptkit.run.rehearsal import rehearsal_of
    from adaptkit.run.runner import train_recipe
    from adaptkit.run.scoring import prove_text, require_unchanged_text

    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="adaptkit-rehearsal-") as folder:
        with console.status("building stand-ins"):
            rehearsal = rehearsal_of(recipe, Path(folder) / "stand_ins")
        run = train_recipe(rehearsal, Path(folder) / "run", ConsoleReporter(console))
        text = prove_text(run.workflows, run.reporter)
        table = Table("stage", "steps", "first loss", "last loss", "seconds", title=f"Rehearsal of {recipe.name}")
        for name, stage in run.stages.items():
            losses = [line["loss"] for line in stage.metrics if line.get("loss") is not None]
            first, last = (f"{losses[0]:.3f}", f"{losses[-1]:.3f}") if losses else ("–", "–")
            table.add_row(name, str(stage.final_step), first, last, f"{stage.seconds:.1f}")
    console.print()
    console.print(table)
    console.print(identity_line(text), highlight=False)
    require_unchanged_text({"text": text}, rehearsal)
    console.print(
        "Every stage ran on stand-ins: tiny random models of the same families, and a small sample of each data "
        "format. The losses say nothing about the real models."
    )
