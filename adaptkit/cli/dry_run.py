"""`adaptkit train --dry-run`: what a run would do, without training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from adaptkit.build import (
    MediaStore,
    Sources,
    StageData,
    build_sources,
    build_stage_data,
    build_tokenizer,
    check_validation,
    missing_resources,
    split_sources,
    stage_datasets,
)
from adaptkit.chat.encoding import label_segments
from adaptkit.cli.prediction_tables import show_predictions
from adaptkit.cli.quiet import quiet_libraries
from adaptkit.cli.reporter import ConsoleReporter
from adaptkit.cli.terminal import Console, styled
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data_tools.check import Spread, look_at_spread
from adaptkit.errors import DataError, ModelError, inert_text, join_lines
from adaptkit.model.inspection import describe_components
from adaptkit.prediction.building import load_skeletons
from adaptkit.prediction.stages import PredictionOptions, Predictor, StagePrediction
from adaptkit.recipe import Draw, Recipe, StageConfig, dump_recipe
from adaptkit.reporting import StageStart
from adaptkit.run.batch_sizes import for_prediction
from adaptkit.run.loaded import LoadedModels
from adaptkit.run.requirements import unmet_requirements
from adaptkit.run.runner import check_stages, fitting_stage, hold_out, report_token_warnings

_FORWARD_SHARE = 0.5
"""Of the operations of a step, at most: a backward pass costs what the forward pass does, or more."""
_ADVICE = "`adaptkit data check RECIPE` finds all of them."


def show_dry_run(recipe: Recipe, console: Console, options: PredictionOptions | None = None) -> bool:
    """Print the resolved recipe, what each stage trains with one example, and the memory and time it will take.

    No weights are loaded: of models, their configs are enough. Where data or the tokenizer is missing, that is said,
    and there are no examples. Of each dataset some samples of every kind are read with their media.

    Returns:
        Whether the run can start on this machine.

    Raises:
        DataError: So many of them are bad that the run would stop.
    """
    quiet_libraries()
    options = options or PredictionOptions()
    strategy, num_devices = options.devices(recipe)
    problems = unmet_requirements(recipe, strategy)
    if not problems:
        check_stages(recipe, strategy)
    console.print(Syntax(dump_recipe(recipe), "yaml", background_color="default"))
    reporter = ConsoleReporter(console)
    recipe = for_prediction(recipe, options, reporter)
    skeletons = load_skeletons(recipe)
    missing, data = _open_data(skeletons, reporter)
    predictor = Predictor(skeletons, options)
    doubts: list[str] = []
    num_steps: dict[str, int] = {}
    validations: dict[str, float] = {}
    predictions: list[StagePrediction] = []
    for number, stage in enumerate(recipe.stages, start=1):
        stage_data = None if data is None else data.of_stage(stage, num_devices)
        num_items = None if stage_data is None else len(stage_data.sampler)
        if num_items is not None or stage.max_steps > 0:
            num_steps[stage.name] = stage.num_steps(num_items or 0, num_devices)
        place, steps = f"{number}/{len(recipe.stages)}", num_steps.get(stage.name, 0)
        components = {size.name: size.num_parameters for size in describe_components(predictor.model(stage))}
        reporter.stage(StageStart(stage, place, components, num_items, steps, num_devices))
        if data is not None and stage_data is not None:
            data.show_example(stage, stage_data.conversations)
            steps = num_steps[stage.name]
            validations[stage.name] = data.show_validation(stage, steps, num_devices)
            doubts += data.look_at(stage)
        predictions.append(_predict(predictor, stage, reporter))
    console.print()
    show_predictions(console, recipe, predictions, options, num_steps, validations)
    _show_problems(console, "Not on this machine, so there are no examples, and the run cannot start:", missing)
    _show_problems(console, "The run cannot start on this machine:", problems)
    console.print()
    console.print("dry run: nothing was trained or written.")
    if doubts:
        raise DataError(join_lines(["the run would stop because of bad samples:", *doubts, _ADVICE]))
    return not (missing or problems)


def _predict(predictor: Predictor, stage: StageConfig, reporter: ConsoleReporter) -> StagePrediction:
    with reporter.working(f"predicting the memory of stage {stage.name}"):
        try:
            return predictor.predict(stage)
        except ModelError as error:
            raise ModelError(f"stage {stage.name!r}: {error}") from error


def _show_problems(console: Console, opening: str, problems: list[str]) -> None:
    for line in [opening, *(f"  {problem}" for problem in problems)] if problems else []:
        console.print(line, style="yellow", highlight=False)


def _open_data(models: LoadedModels, reporter: ConsoleReporter) -> tuple[list[str], _Data | None]:
    """Open the data of a recipe: what is missing, if anything is, or the data."""
    recipe = models.recipe
    problems = [problem for problem in missing_resources(recipe) if not problem.startswith("modalities.")]
    try:
        models = replace(models, tokenizer=build_tokenizer(recipe.base))
    except ModelError as error:
        problems.append(str(error))
    if problems:
        return problems, None
    opened = build_sources(recipe, dict.fromkeys(name for stage in recipe.stages for name in stage_datasets(stage)))
    report_token_warnings(models, opened, reporter)
    sources = split_sources(opened, hold_out(recipe, opened, reporter))
    check_validation(recipe, sources.measured)
    return [], _Data(models, sources, reporter)


@dataclass(frozen=True)
class _Data:
    """The data of a recipe, as its stages read it.

    Attributes:
        models: With the tokenizer.
        sources: Datasets by name, without and with only what is held out.
        reporter: Shows examples.
        spreads: What samples of each dataset are like, by dataset and modalities; filled as stages are looked at.
    """

    models: LoadedModels
    sources: Sources
    reporter: ConsoleReporter
    spreads: dict[tuple[str, ...], Spread] = field(default_factory=dict)

    def media(self, stage: StageConfig) -> MediaStore:
        """Reads the media of a stage."""
        return MediaStore(self.models.processor(stage.workflow))

    def of_stage(self, stage: StageConfig, num_devices: int) -> StageData:
        """What the stage would train on."""
        sources = {name: self.sources.trained[name] for name in stage.data}
        fitting = fitting_stage(self.models.base, stage, self.reporter)
        return build_stage_data(self.models.recipe, fitting, sources, self.media(stage), None, num_devices)

    def show_validation(self, stage: StageConfig, num_steps: int, num_devices: int) -> float:
        """Print how many rows a stage is validated on; how many steps take as long."""
        amounts = stage.validation.data.items() if stage.validation else ()
        rows = sum(a.count if isinstance(a, Draw) else len(self.sources.measured[name]) for name, a in amounts)
        times = stage.num_validations(num_steps)
        step = stage.train_batch_size or stage.size_per_device * stage.num_passes * num_devices
        steps = _FORWARD_SHARE * rows * times / step
        if rows:
            self.reporter.console.print(
                f"validation: {rows:,} rows, {times:,} times; takes as long as {steps:,.0f} steps"
            )
        return steps

    def look_at(self, stage: StageConfig) -> list[str]:
        """Print what a look at samples of every kind finds; why the stage could not be trained, if so."""
        found = {name: self._spread(name, self.media(stage)) for name in stage.data}
        expected = sum(spread.bad_fraction * spread.num_samples for spread in found.values())
        tolerated = self.models.recipe.max_bad_fraction
        if expected <= tolerated * sum(spread.num_samples for spread in found.values()):
            return []
        bad = "; ".join(f"data.{name}: {_summary(spread)}" for name, spread in found.items() if spread.num_bad)
        return [f"  stage {stage.name}: {bad}; max_bad_fraction is {tolerated:g}"]

    def _spread(self, name: str, media: MediaStore) -> Spread:
        key = (name, *media.processor.modalities)
        if key not in self.spreads:
            with self.reporter.console.status(f"looking at samples of {name}"):
                spread = self.spreads[key] = look_at_spread(self.sources.trained[name], media)
            if spread.num_bad:
                self.reporter.console.print(f"data.{name}: {_summary(spread)}", style="yellow", highlight=False)
                for problem in spread.problems:
                    self.reporter.console.print(Padding(inert_text(problem), (0, 0, 0, 2)))
        return self.spreads[key]

    def show_example(self, stage: StageConfig, dataset: ConversationDataset) -> None:
        """The first usable conversation of the first epoch, decoded, with its labelled part marked."""
        media = self.media(stage)
        for index in dataset.mixture.indices(0):
            try:
                encoded = media.encode(dataset.mixture[index])
            except DataError as error:
                self.reporter.console.print(styled("bad sample:", "yellow"), str(error))
                continue
            text = Text()
            for segment, labelled in label_segments(self.models.tokenizer, encoded):
                text.append(inert_text(segment), style="bold green" if labelled else "dim")
            positions = f"one conversation of {len(encoded.input_ids)} positions"
            self.reporter.console.print(f"{positions}; green is what is learned:")
            self.reporter.console.print(Padding.indent(text, 2))
            return


def _summary(spread: Spread) -> str:
    return f"{spread.num_bad:,} of {spread.num_rows:,} samples looked at are bad"
