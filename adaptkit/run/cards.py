"""Facts for the model cards of a run: how its workflows were trained, what they score, and that text is unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptkit.evaluation.benchmark_rows import SECTION
from adaptkit.evaluation.differences import failures
from adaptkit.evaluation.text_identity import identity_prompts
from adaptkit.files.hub import is_hub_id
from adaptkit.inference.routing import TEXT
from adaptkit.interfaces import DataSource
from adaptkit.model.card.facts import Card, Dataset, Proof, Score, Stage, read_card
from adaptkit.model.card.writing import rewrite_card
from adaptkit.model.inspection import describe_components
from adaptkit.model.run_folders import FINAL_FOLDER
from adaptkit.processes.group import num_processes
from adaptkit.recipe import Recipe
from adaptkit.stage import Draw, StageConfig
from adaptkit.training.stage import StageResult

METRICS = ("accuracy", "workflow_accuracy")
_THROUGH = {True: ", through the base", False: ", text through the base"}
BASELINES = ("blind", "majority", "base_accuracy")


# -- training ----------------------------------------------------------------------------------------------------------


def training_card(
    recipe: Recipe,
    workflow: str,
    model: Any,
    results: Mapping[str, StageResult],
    sources: Mapping[str, DataSource],
) -> Card:
    """What is known of a workflow when its last stage has ended.

    Args:
        recipe: Of the run.
        workflow: Its name.
        model: It.
        results: Of the stages.
        sources: The datasets.
    """
    sizes = {part.name: part.num_parameters for part in describe_components(model)}
    stages = list(lineage(recipe, workflow))
    names = dict.fromkeys(name for stage in stages for name in stage.data)
    return Card(
        name=f"{recipe.name}-{workflow}",
        data=[_dataset(recipe, name, sources.get(name)) for name in names],
        stages=[_stage(stage, results[stage.name].final_step, sizes) for stage in stages],
    )


def lineage(recipe: Recipe, workflow: str) -> Iterator[StageConfig]:
    """The stages behind a workflow, first to last: its last one, and those that this one started from."""
    stages = {stage.name: stage for stage in recipe.stages}
    last = [stage for stage in recipe.stages if stage.workflow == workflow][-1]
    found = [last]
    while found[-1].start_from is not None:
        found.append(stages[found[-1].start_from])
    return reversed(found)


def _dataset(recipe: Recipe, name: str, source: DataSource | None) -> Dataset:
    config = recipe.data[name]
    path = str(config.values().get("path") or "")
    is_local = (Path(recipe.data_root or "") / path).exists()
    on_hub = config.format == "hf_dataset" and "/" in path and is_hub_id(path) and not is_local
    number = len(source) if source is not None and hasattr(source, "__len__") else None
    return Dataset(name=name, format=config.format, hub_id=path if on_hub else None, num_samples=number)


def _stage(stage: StageConfig, num_steps: int, sizes: Mapping[str, int]) -> Stage:
    data = {n: f"{s.count} samples an epoch" if isinstance(s, Draw) else f"weight {s:g}" for n, s in stage.data.items()}
    return Stage(
        name=stage.name,
        workflow=stage.workflow,
        train=list(stage.train),
        num_trainable=sum(sizes.get(part, 0) for part in stage.train),
        num_steps=num_steps,
        batch_size=stage.step_size(num_processes()),
        packing=stage.packing,
        optimizer=" and ".join(sorted(stage.optimizer_names())),
        learning_rate=stage.optimizer.learning_rate,
        data=data,
    )


# -- results -----------------------------------------------------------------------------------------------------------


def record_results(output_dir: Path, workflows: Mapping[str, tuple[Any, Any]], results: Mapping[str, Any]) -> None:
    """Write scores and proof of a run's results into the cards of its finished workflows.

    Args:
        output_dir: The run directory.
        workflows: Model and processor of each.
        results: As in `results.json`.
    """
    for name, (model, processor) in workflows.items():
        found = {"scores": scores_of(results, name, list(workflows)), "proof": proof_of(results, model, processor)}
        model.card = _update(output_dir / FINAL_FOLDER / name, found) or model.card


def record_scores(output_dir: Path, workflows: Iterable[str], results: Mapping[str, Any]) -> None:
    """Write scores alone into the cards of a run, whose results have been added to."""
    names = list(workflows)
    for name in names:
        _update(output_dir / FINAL_FOLDER / name, {"scores": scores_of(results, name, names)})


def _update(folder: Path, facts: Mapping[str, Any]) -> Card | None:
    card = read_card(folder)
    if card is None:
        return None
    card = card.model_copy(update=dict(facts))
    rewrite_card(folder, card)
    return card


def scores_of(results: Mapping[str, Any], workflow: str, workflows: list[str]) -> list[Score]:
    """The scores of one workflow among a run's results; text is of the base, which all of them share.

    Args:
        workflows: All of the run; the first is asked where a benchmark does not say which.
    """
    sections = {name: scores for name, scores in results.items() if isinstance(scores, Mapping) and name != "harness"}
    benchmarks = sections.pop(SECTION, {})
    own = [
        _score(section, metric, scores, scores.get("harness") or results.get("harness") or {})
        for section, scores in sections.items()
        for metric in scores
        if (metric in METRICS or metric.startswith("acc@")) and isinstance(scores[metric], int | float)
        if section == "text" or scores.get("workflow", workflows[0]) == workflow
    ]
    return own + [
        _benchmark_score(name, metric, value, through, section)
        for name, section in benchmarks.items()
        for through, scores in section["scores"].items()
        if {*through.split("+")} <= {workflow, TEXT}
        for metric, value in scores["metrics"].items()
    ]


def _benchmark_score(name: str, metric: str, value: float, through: str, section: Mapping[str, Any]) -> Score:
    harness = section["harness"]
    return Score(
        section=name,
        metric=metric + (_THROUGH[through == TEXT] if TEXT in through.split("+") else ""),
        value=float(value),
        num_samples=section["n"],
        task=name,
        dataset=name,
        rules=str(harness.get("name") or harness.get("harness") or "harness"),
    )


def _score(section: str, metric: str, scores: Mapping[str, Any], harness: Mapping[str, Any]) -> Score:
    task = str(harness.get("task") or section)
    return Score(
        section=section,
        metric=metric,
        value=float(scores[metric]),
        num_samples=scores.get("n"),
        baselines={name: float(scores[name]) for name in BASELINES if isinstance(scores.get(name), int | float)},
        task=task,
        dataset=str(harness.get("dataset") or f"{task}: {section}"),
        split=harness.get("split"),
        rules=str(harness.get("name") or task),
        trained_on=bool(scores.get("trained_on")),
    )


def proof_of(results: Mapping[str, Any], model: Any, processor: Any) -> Proof | None:
    """What results say about unchanged text; None where nothing could be compared."""
    text = results.get("text") or {}
    if text.get("logits_identical") is None or "logits_sha256" not in text:
        return None
    prompts = identity_prompts(model.base, processor.tokenizer)
    random = len(identity_prompts(model.base, None))
    return Proof(
        identical=not failures(text, own_template=True),
        prompts=[" ".join(map(str, ids)) for ids in prompts],
        num_written=len(prompts) - random,
        num_positions=text["num_positions"],
        num_answers=text["num_own_answers"],
        logits_sha256=text["logits_sha256"],
        answers_sha256=text["answers_sha256"],
        environment=text["environment"],
    )
