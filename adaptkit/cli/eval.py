"""`adaptkit eval`: scores of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console

from adaptkit.errors import RecipeError


@click.command(name="eval")
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--tasks", required=True, metavar="A,B", help="Benchmarks; `adaptkit plugins` lists them.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Items of each kind of question; the benchmark's own number by default."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of a benchmark that reads files.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Draws the items; that of the run's recipe by default, else 0."
)
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
@click.option("--workflow", help="Score this workflow of a run alone; by default a task takes those it knows.")
def evaluate(
    checkpoint: Path,
    tasks: str,
    limit: int | None,
    data: Path | None,
    seed: int | None,
    as_json: bool,
    workflow: str | None,
) -> None:
    """Score CHECKPOINT, a workflow's folder or a run directory, on benchmarks.

    In a run directory, `world` asks for boxes through the workflow named `grounding` where there is one, and
    all else through the first workflow.
    """
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.evaluation.tables import render_results_table

    quiet_libraries()
    settings = _run_settings(checkpoint)
    built = _build_tasks(tasks, settings)
    folders = _workflow_folders(checkpoint, workflow)
    progress_console = Console(stderr=True)
    with progress_console.status("loading the checkpoint"):
        workflows = _load_workflows(folders)
    options = {
        "limit": limit if limit is not None else settings.get("limit"),
        "seed": seed if seed is not None else settings.get("seed", 0),
        "data": data,
    }
    results: dict[str, Any] = {}
    for name, task in built.items():
        with _progress(progress_console, name) as progress:
            results |= _evaluate(name, task, workflows, {**options, "progress": progress})
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        Console().print(render_results_table(results, title=f"{checkpoint}: {tasks}"))


def _run_settings(checkpoint: Path) -> dict[str, Any]:
    """The `evaluation` section of a run's resolved recipe, so that the same numbers come out again."""
    path = checkpoint / "recipe.yaml"
    if not path.is_file():
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    settings = recipe.get("evaluation") if isinstance(recipe, dict) else None
    return settings if isinstance(settings, dict) else {}


def _build_tasks(tasks: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmarks by name, with the options of the run's recipe.

    Raises:
        PluginError: No benchmark has that name.
    """
    from adaptkit.plugin_manager import get_plugin_manager

    configured = {task.get("name"): task for task in settings.get("tasks") or [] if isinstance(task, dict)}
    names = list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("name at least one benchmark.", param_hint="--tasks")
    manager = get_plugin_manager()
    built = {}
    for name in names:
        options = {key: value for key, value in configured.get(name, {}).items() if key != "name"}
        built[name] = manager.build("evaluation task", name, options)
    return built


def _workflow_folders(checkpoint: Path, workflow: str | None) -> dict[str, Path]:
    from adaptkit.runs import find_workflow, workflow_folders

    if workflow is None:
        return workflow_folders(checkpoint)
    return {workflow: find_workflow(checkpoint, workflow)}


def _load_workflows(folders: Mapping[str, Path]) -> dict[str, tuple[Any, Any]]:
    """Models and processors, all on one base and its encoders."""
    import torch

    import adaptkit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, encoders = None, None
    workflows = {}
    for name, folder in folders.items():
        model = adaptkit.load(folder, base=base, encoders=encoders).to(device)
        base, encoders = model.base, model.source_encoders
        workflows[name] = (model, adaptkit.load_processor(folder))
    return workflows


def _evaluate(
    name: str, task: Any, workflows: Mapping[str, tuple[Any, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores of one benchmark: sections of its own, or one section under its name."""
    if hasattr(task, "evaluate_workflows"):
        scores: dict[str, Any] = task.evaluate_workflows(workflows, **options).results
        return scores
    model, processor = next(iter(workflows.values()))
    return {name: task.evaluate(model, processor, **options)}


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr; silent where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int, part: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{what}: {part}")

        yield progress
