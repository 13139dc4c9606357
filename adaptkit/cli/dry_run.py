"""`adaptkit train --dry-run`: what a run would do, without training."""

from __future__ import annotations

from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from adaptkit.build import MediaStore, StageData, build_sources, build_stage_data, build_tokenizer, missing_resources
from adaptkit.chat import label_segments
from adaptkit.cli.prediction import PredictionOptions, Predictor, StagePrediction, prepare_skeleton
from adaptkit.cli.prediction_tables import show_predictions
from adaptkit.cli.quiet import quiet_libraries
from adaptkit.data.dataset import ConversationDataset
from adaptkit.errors import DataError, ModelError, inert_text
from adaptkit.recipe import Recipe, StageConfig, dump_recipe
from adaptkit.runner import Run, check_stages, fitting_stage, print_stage, print_unknown_words, stage_settings
from adaptkit.terminal import Console, styled


def show_dry_run(recipe: Recipe, console: Console, options: PredictionOptions | None = None) -> None:
    """Print the resolved recipe, what each stage trains and one example of it, and the memory and time it will take.

    No weights are loaded: of models, their configs are enough. Where data or the tokenizer is missing, that is said,
    and there are no examples.
    """
    quiet_libraries()
    check_stages(recipe)
    options = options or PredictionOptions()
    console.print(Syntax(dump_recipe(recipe), "yaml", background_color="default"))
    run = prepare_skeleton(recipe, console)
    missing = _open_data(run)
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
            _show_example(run, data.conversations, MediaStore(run.processor(stage.workflow)))
        with console.status(f"predicting the memory of stage {stage.name}"):
            predictions.append(predictor.predict(stage))
    console.print()
    show_predictions(console, recipe, predictions, options, num_steps)
    if missing:
        console.print("Not on this machine, so there are no examples, and the run cannot start:", style="yellow")
        for problem in missing:
            console.print(f"  {problem}", style="yellow", highlight=False)
    console.print()
    console.print("dry run: nothing was trained or written.")


def _open_data(run: Run) -> list[str]:
    """Give a run its tokenizer and data; what is missing of them, if anything is."""
    problems = [problem for problem in missing_resources(run.recipe) if not problem.startswith("modalities.")]
    try:
        run.tokenizer = build_tokenizer(run.recipe.base)
    except ModelError as error:
        problems.append(str(error))
    if not problems:
        run.sources = build_sources(run.recipe, dict.fromkeys(n for stage in run.recipe.stages for n in stage.data))
        print_unknown_words(run)
    return problems


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
