"""`adaptkit inspect RECIPE`: workflows as a recipe describes them, and what its stages will need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptkit.build import built_parts
from adaptkit.cli.prediction_tables import as_values, show_predictions
from adaptkit.cli.reporter import ConsoleReporter
from adaptkit.cli.terminal import Console
from adaptkit.cli.workflow_tables import describe, show_workflows
from adaptkit.errors import ModelError, unknown_name
from adaptkit.prediction.building import load_skeletons
from adaptkit.prediction.stages import PredictionOptions, Predictor, StagePrediction
from adaptkit.recipe import Recipe, StageConfig, load_recipe
from adaptkit.run.batch_sizes import for_prediction


def show_recipe(
    path: Path, overrides: Sequence[str], workflow: str | None, as_json: bool, options: PredictionOptions
) -> None:
    """Print the workflows of a recipe and a prediction of each of their stages."""
    recipe = load_recipe(path, overrides)
    if workflow is not None and workflow not in recipe.workflows:
        raise ModelError(f"{path}: {unknown_name('workflow', workflow, recipe.workflows)}")
    console = Console(stderr=as_json)
    trained = {stage.workflow for stage in recipe.stages}
    names = [name for name in recipe.workflows if name in trained and workflow in (None, name)]
    for name in recipe.workflows.keys() - trained:
        message = f"no stage trains the workflow {name!r}, so nothing says which parts it has."
        if name == workflow:
            raise ModelError(message)
        console.print(message, style="yellow", highlight=False)
    recipe = for_prediction(recipe, options, ConsoleReporter(console))
    models = load_skeletons(recipe)
    predictor = Predictor(models, options)
    stages = [stage for stage in recipe.stages if stage.workflow in names]
    described = _described(recipe, predictor, names, stages)
    if not as_json:
        show_workflows(described, as_json)
    with console.status("predicting memory"):
        predictions = [predictor.predict(stage) for stage in stages]
    if as_json:
        show_workflows(_with_predictions(described, stages, predictions), as_json)
    else:
        known_steps = {stage.name: stage.max_steps for stage in recipe.stages if stage.max_steps > 0}
        show_predictions(console, recipe, predictions, options, known_steps)


def _described(
    recipe: Recipe, predictor: Predictor, names: list[str], stages: list[StageConfig]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each workflow as its most complete stage builds it."""
    for name in names:
        own = [stage for stage in stages if stage.workflow == name]
        yield name, describe(predictor.model(max(own, key=lambda stage: len(built_parts(recipe, stage)))))


def _with_predictions(
    described: Iterator[tuple[str, dict[str, Any]]], stages: list[StageConfig], predictions: list[StagePrediction]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, values in described:
        own = [p for stage, p in zip(stages, predictions, strict=True) if stage.workflow == name]
        yield name, {**values, "stages": [as_values(prediction) for prediction in own]}
