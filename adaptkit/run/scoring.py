"""Trained workflows on benchmarks: what comes at the end of a run, and of `adaptkit eval`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from adaptkit.build import trained_datasets
from adaptkit.errors import RunError
from adaptkit.evaluation.differences import failures
from adaptkit.evaluation.report import ReportData, gallery_items, write_report
from adaptkit.evaluation.scores import Answer
from adaptkit.evaluation.text_identity import TextProof
from adaptkit.files.writing import write_json
from adaptkit.interfaces import Evaluation, EvaluationTask
from adaptkit.model.inspection import describe_components, describe_layers
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import Recipe, TaskConfig, dump_recipe, written_description
from adaptkit.reporting import Reporter
from adaptkit.run.cards import record_results
from adaptkit.run.runner import METRICS_FILE, Run
from adaptkit.surgery import quantization_of
from adaptkit.training.metrics import read_metrics

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


def evaluate_run(run: Run, started: float, command: str) -> dict[str, Any]:
    """Score a trained run on the recipe's tasks, and prove that text is unchanged, whatever the tasks.

    Writes `results.json` and `report.html`. `require_unchanged_text` says whether the proof holds.

    Args:
        started: `time.monotonic()` when the run began, for `seconds`.
        command: What the user typed, for the report.
    """
    settings = run.recipe.evaluation
    options = {"limit": settings.limit, "seed": settings.seed}
    evaluation = score(zip(settings.tasks, run.task_sources), run.workflows, options, run.reporter)
    results = evaluation.results
    if not evaluation.proves_text:
        results["text"] = prove_text(run.workflows, run.reporter)
    mark_trained(results, run.recipe, settings.tasks)
    results["seconds"] = round(time.monotonic() - started, 1)
    results["training_seconds"] = round(sum(stage.seconds for stage in run.stages.values()), 1)
    write_json(run.output_dir / RESULTS_FILE, results)
    record_results(run.output_dir, run.workflows, results)
    _write_report(run, results, evaluation.answers, command)
    return results


def score(
    tasks: Iterable[tuple[TaskConfig, Mapping[str, Any]]],
    workflows: Mapping[str, tuple[Any, Any]],
    options: Mapping[str, Any],
    reporter: Reporter,
) -> Evaluation:
    """Run benchmarks, and put what they find together.

    Args:
        tasks: The benchmarks, each with the keywords that say what it reads.
    """
    results: dict[str, Any] = {}
    answers: list[Answer] = []
    proven = False
    for task, sources in tasks:
        built = get_plugin_manager().get("evaluation task", task.name).build(task.options)
        with reporter.progress(f"evaluating {task.name}") as progress:
            found = evaluate_task(task.name, built, workflows, {**options, **sources, "progress": progress})
        results |= found.results
        answers += found.answers
        proven |= found.proves_text
    return Evaluation(results, answers, proves_text=proven)


def prove_text(workflows: Mapping[str, tuple[Any, Any]], reporter: Reporter) -> dict[str, Any]:
    """Compare the base that workflows share with a process that loads it without adaptkit.

    Returns:
        The section `text` of results; its `failed` says why nothing could be compared.
    """
    model, processor = next(iter(workflows.values()))
    if not _room_for_another(model.base):
        for other, _ in workflows.values():
            other.to("cpu")  # where both processes then compute
    with reporter.working("comparing text with a process without adaptkit"):
        try:
            with TextProof(model.base, processor.tokenizer) as proof:
                return proof.result()[0]
        except RunError as error:
            return {"logits_identical": None, "note": "the comparison failed", "failed": str(error)}


def _room_for_another(base: Any) -> bool:
    """Whether the device of a base can hold it a second time, or need not, since a packed base cannot move."""
    if base.device.type != "cuda" or quantization_of(base) is not None:
        return True
    torch.cuda.empty_cache()
    return bool(torch.cuda.mem_get_info(base.device)[0] > 1.2 * sum(p.nbytes for p in base.parameters()))


def require_unchanged_text(results: Mapping[str, Any], recipe: Recipe | None) -> None:
    """Stop a run whose proof does not hold.

    Args:
        results: As `evaluate_run` returns them; without a section `text` nothing is claimed.
        recipe: Of the run; without one, where the checkpoint's tokenizer and template are from is not known, and they
            may differ.

    Raises:
        RunError: Text is not what a process without adaptkit makes of it, or the comparison failed.
    """
    text = results.get("text")
    found = [] if text is None else failures(text, own_template=recipe is None or recipe.base.chat_template is not None)
    if recipe is not None and text is not None and text.get("tokenizer_identical") is False:
        found += text["tokenizer_differences"]
    if found:
        raise RunError(
            "text is not proven to be unchanged. Against a process that loads the base without adaptkit: "
            f"{'; '.join(found)}. Do not rely on these workflows to leave the base as it is. A plugin may have "
            "changed the base or its classes, or the base's files may have changed during the run."
        )


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
    """
    method = getattr(task, "evaluate_workflows", None)
    if getattr(method, "__func__", method) not in (None, EvaluationTask.evaluate_workflows):
        evaluation: Evaluation = task.evaluate_workflows(workflows, **options)
        return evaluation
    model, processor = next(iter(workflows.values()))
    return Evaluation({name: task.evaluate(model, processor, **{"data": None, **options})})


def _write_report(run: Run, results: Mapping[str, Any], answers: Sequence[Answer], command: str) -> None:
    model, processor = next(reversed(run.workflows.values()))
    write_report(
        run.output_dir / REPORT_FILE,
        ReportData(
            title=run.recipe.name,
            results=results,
            description=written_description(run.recipe),
            metrics=read_metrics(run.output_dir / METRICS_FILE),
            layers=describe_layers(model),
            components=[asdict(size) for size in describe_components(model)],
            gallery=gallery_items(answers, processor),
            command=command,
            recipe=dump_recipe(run.recipe),
        ),
    )
