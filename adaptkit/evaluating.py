"""Trained workflows on benchmarks: what comes at the end of a run, and of `adaptkit eval`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adaptkit.build import trained_datasets
from adaptkit.evaluation.report import ReportData, gallery_items, write_report
from adaptkit.evaluation.scores import Answer, Evaluation
from adaptkit.model.inspection import describe_components, describe_layers
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.progress import progress_bar
from adaptkit.recipe import Recipe, TaskConfig, dump_recipe, written_description
from adaptkit.runner import METRICS_FILE, Run
from adaptkit.training.checkpoints import write_whole

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


def evaluate_run(run: Run, started: float, command: str) -> dict[str, Any]:
    """Score a trained run on the recipe's tasks; write `results.json` and `report.html`.

    Args:
        run: What `train_recipe` returned.
        started: `time.monotonic()` when the run began, for `seconds`.
        command: What the user typed, for the report.
    """
    results: dict[str, Any] = {}
    answers: list[Answer] = []
    settings = run.recipe.evaluation
    for task, sources in zip(settings.tasks, run.task_sources):
        built = get_plugin_manager().get("evaluation task", task.name).build(task.options)
        with progress_bar(run.console, f"evaluating {task.name}") as advance:
            options = {"limit": settings.limit, "seed": settings.seed, "progress": advance}
            evaluation = evaluate_task(task.name, built, run.workflows, {**options, **sources})
            results |= evaluation.results
            answers += evaluation.answers
    mark_trained(results, run.recipe, settings.tasks)
    results["seconds"] = round(time.monotonic() - started, 1)
    results["training_seconds"] = round(sum(stage.seconds for stage in run.stages.values()), 1)
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    write_whole(run.output_dir / RESULTS_FILE, text)
    _write_report(run, results, answers, command)
    return results


def mark_trained(results: dict[str, Any], recipe: Recipe, tasks: Iterable[TaskConfig]) -> None:
    """Note in results, as `trained_on`, which sections asked about what a stage trains on."""
    for name in {name for task in tasks for name in trained_datasets(recipe, task)} & results.keys():
        results[name]["trained_on"] = True


def evaluate_task(
    name: str, task: Any, workflows: Mapping[str, tuple[Any, Any]], options: Mapping[str, Any]
) -> Evaluation:
    """Run one benchmark: over all workflows where it knows how to, else over the first.

    Args:
        name: Of the benchmark, and of the results' section where it gives none of its own.
        task: The benchmark.
        workflows: Model and processor of each workflow.
        options: Keywords of its `evaluate`.
    """
    if hasattr(task, "evaluate_workflows"):
        evaluation: Evaluation = task.evaluate_workflows(workflows, **options)
        return evaluation
    model, processor = next(iter(workflows.values()))
    return Evaluation({name: task.evaluate(model, processor, **{"data": None, **options})})


def _write_report(run: Run, results: Mapping[str, Any], answers: Sequence[Answer], command: str) -> None:
    model, processor = next(reversed(run.workflows.values()))
    metrics = (run.output_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    write_report(
        run.output_dir / REPORT_FILE,
        ReportData(
            title=run.recipe.name,
            results=results,
            description=written_description(run.recipe),
            metrics=[json.loads(line) for line in metrics],
            layers=describe_layers(model),
            components=[asdict(size) for size in describe_components(model)],
            gallery=gallery_items(answers, processor),
            command=command,
            recipe=dump_recipe(run.recipe),
        ),
    )
