"""`adaptkit train --dry-run`: what a run would do, without training."""

from __future__ import annotations

from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from adaptkit.build import MediaStore, StageData, build_sources, build_stage_data, build_tokenizer, missing_resources
from adaptkit.chat.encoding import label_segments
from adaptkit.cli.prediction import PredictionOptions, Predictor, StagePrediction, prepare_skeleton
from adaptkit.cli.prediction_tables import show_predictions
from adaptkit.cli.quiet import quiet_libraries
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data_tools.check import Spread, look_at_spread
from adaptkit.errors import DataError, ModelError, inert_text, join_lines
from adaptkit.recipe import Recipe, StageConfig, dump_recipe
from adaptkit.run.requirements import unmet_requirements
from adaptkit.run.runner import Run, check_stages, fitting_stage, print_stage, print_token_warnings, stage_settings
from adaptkit.terminal import Console, styled

_ADVICE = "`adaptkit data check RECIPE` finds all of them."


def show_dry_run(recipe: Recipe, console: Console, options: PredictionOptions | None = None) -> bool:
    """Print the resolved recipe, what each stage trains and one example of it, and the memory and time it will take.

    No weights are loaded: of models, their configs are enough. Where data or the tokenizer is missing, that is said,
    and there are no examples. Of each dataset some samples of every kind are read with their media.

    Returns:
        Whether the run can start on this machine.

    Raises:
        DataError: So many of them are bad that the run would stop.
    """
    quiet_libraries()
    problems = unmet_requirements(recipe)
    if not problems:
        check_stages(recipe)
    options = options or PredictionOptions()
    console.print(Syntax(dump_recipe(recipe), "yaml", background_color="default"))
    run = prepare_skeleton(recipe, console)
    missing = _open_data(run)
    spreads: dict[tuple[str, ...], Spread] = {}
    doubts: list[str] = []
    predictor, num_steps = Predictor(run, options), {}
    predictions: list[StagePrediction] = []
    for number, stage in enumerate(recipe.stages, start=1):
        data = None if missing else _stage_data(run, stage)
        settings = stage_settings(stage)
        num_batches = None if data is None else len(data.sampler)
        if num_batches is not None or settings.max_steps > 0:
            num_steps[stage.name] = settings.num_steps(num_batches or 0, options.devices(recipe)[1])
        place, steps = f"{number}/{len(recipe.stages)}", num_steps.get(stage.name, 0)
        print_stage(console, stage, place, predictor.model(stage), num_batches, steps)
        if data is not None:
            media = MediaStore(run.processor(stage.workflow))
            _show_example(run, data.conversations, media)
            doubts += _look_at_data(run, stage, media, spreads)
        with console.status(f"predicting the memory of stage {stage.name}"):
            try:
                predictions.append(predictor.predict(stage))
            except ModelError as error:
                raise ModelError(f"stage {stage.name!r}: {error}") from error
    console.print()
    show_predictions(console, recipe, predictions, options, num_steps)
    if missing:
        console.print("Not on this machine, so there are no examples, and the run cannot start:", style="yellow")
        for problem in missing:
            console.print(f"  {problem}", style="yellow", highlight=False)
    if problems:
        console.print("The run cannot start on this machine:", style="yellow")
        for problem in problems:
            console.print(f"  {problem}", style="yellow", highlight=False)
    console.print()
    console.print("dry run: nothing was trained or written.")
    if doubts:
        raise DataError(join_lines(["the run would stop because of bad samples:", *doubts, _ADVICE]))
    return not (missing or problems)


def _open_data(run: Run) -> list[str]:
    """Give a run its tokenizer and data; what is missing of them, if anything is."""
    problems = [problem for problem in missing_resources(run.recipe) if not problem.startswith("modalities.")]
    try:
        run.tokenizer = build_tokenizer(run.recipe.base)
    except ModelError as error:
        problems.append(str(error))
    if not problems:
        run.sources = build_sources(run.recipe, dict.fromkeys(n for stage in run.recipe.stages for n in stage.data))
        print_token_warnings(run)
    return problems


def _look_at_data(run: Run, stage: StageConfig, media: MediaStore, spreads: dict[tuple[str, ...], Spread]) -> list[str]:
    """Print what a look at samples of every kind finds; why the stage could not be trained, if so.

    Args:
        run: The run, with its data.
        stage: One of its stages.
        media: Reads its media.
        spreads: What was found so far, by dataset and modalities; it is added to.
    """
    found: dict[str, Spread] = {}
    for name in stage.data:
        key = (name, *media.processor.modalities)
        if key not in spreads:
            with run.console.status(f"looking at samples of {name}"):
                spread = spreads[key] = look_at_spread(run.sources[name], media)
            if spread.num_bad:
                run.console.print(f"data.{name}: {_summary(spread)}", style="yellow", highlight=False)
                for problem in spread.problems:
                    run.console.print(Padding(inert_text(problem), (0, 0, 0, 2)))
        found[name] = spreads[key]
    expected = sum(spread.bad_fraction * spread.num_samples for spread in found.values())
    if expected <= run.recipe.max_bad_fraction * sum(spread.num_samples for spread in found.values()):
        return []
    bad = "; ".join(f"data.{name}: {_summary(spread)}" for name, spread in found.items() if spread.num_bad)
    return [f"  stage {stage.name}: {bad}; max_bad_fraction is {run.recipe.max_bad_fraction:g}"]


def _summary(spread: Spread) -> str:
    return f"{spread.num_bad:,} of {spread.num_rows:,} samples looked at are bad"


def _stage_data(run: Run, stage: StageConfig) -> StageData:
    media = MediaStore(run.processor(stage.workflow))
    sources = {name: run.sources[name] for name in stage.data}
    return build_stage_data(run.recipe, fitting_stage(run, stage), sources, media, None)


def _show_example(run: Run, dataset: ConversationDataset, media: MediaStore) -> None:
    """The first usable conversation of the first epoch, decoded, with its labelled part marked."""
    for index in dataset.mixture.indices(0):
        try:
            encoded = media.encode(dataset.mixture[index])
        except DataError as error:
            run.console.print(styled("bad sample:", "yellow"), str(error))
            continue
        text = Text()
        for segment, labelled in label_segments(run.tokenizer, encoded):
            text.append(inert_text(segment), style="bold green" if labelled else "dim")
        run.console.print(f"one conversation of {len(encoded.input_ids)} positions; green is what is learned:")
        run.console.print(Padding.indent(text, 2))
        return
