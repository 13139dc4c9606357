"""`adaptkit eval`: scores of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.eval_harnesses import harness_options, harness_tasks, score_harness_tasks, show_tasks
from adaptkit.cli.output import json_option, seed_option, trust_option
from adaptkit.cli.terminal import Console, echo_json
from adaptkit.plugin_manager import get_plugin_manager

if TYPE_CHECKING:
    from adaptkit.recipe import Recipe, TaskConfig

TEXT = "text"
"""Name of the base among the workflows, as in `adaptkit.inference`."""


@click.command(name="eval")
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option(
    "--tasks",
    metavar="A,B",
    show_default="those of the run's recipe",
    help="Benchmarks, as `adaptkit plugins` lists them, and tasks, groups and tags of lmms-eval and lm-eval. Where "
    "both have a name, text is lm-eval's; `lmms:NAME` and `lm:NAME` choose.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    show_default="that of the run's recipe, else the benchmark's own",
    help="Most items of each kind of question.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the benchmark's files; with tasks of the harnesses, that of their datasets, and the network is not "
    "used. For a benchmark that asks about a recipe's datasets, it replaces data_root; no other files of the "
    "recipe are needed.",
)
@seed_option("Seed by which items are drawn.", show_default="that of the run's recipe, else 0")
@json_option()
@trust_option()
@click.option(
    "--workflow",
    metavar="A,B",
    show_default="those that a benchmark asks",
    help="Score only these workflows of a run. Tasks of the harnesses then send text through them, too, and have their "
    "scores side by side; `text` is the base.",
)
@harness_options
def evaluate(
    checkpoint: Path | None,
    tasks: str | None,
    limit: int | None,
    data: Path | None,
    seed: int | None,
    as_json: bool,
    trust_remote_code: bool,
    workflow: str | None,
    list_tasks: bool,
    **harness: Any,
) -> None:
    """Score CHECKPOINT, a workflow's folder or hub id or a run directory, on benchmarks.

    In a run directory, the benchmark `world` asks for boxes through the workflow `grounding` if there is one, and
    for everything else through the first workflow.

    Tasks of lmms-eval and lm-eval need the extra `eval`. They are asked and scored by the harness, media through a
    workflow and text through the base. Answers are kept, so that an evaluation that was stopped goes on; a run keeps
    the scores, too. Nothing is ever sent to a judge elsewhere.
    """
    if list_tasks:
        return show_tasks(data, as_json)
    if checkpoint is None:
        raise click.MissingParameter(param_hint="CHECKPOINT", param_type="argument")
    from adaptkit.chat.template import fix_date
    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.cli.reporter import ConsoleReporter
    from adaptkit.cli.results_tables import render_results_table
    from adaptkit.model.run_folders import located, workflow_folders
    from adaptkit.run.scoring import mark_trained, prove_text, require_unchanged_text, score

    quiet_libraries()
    given, checkpoint = checkpoint, located(checkpoint)
    run, recipe = _run_and_recipe(checkpoint)
    own, foreign = _own_and_foreign(tasks, recipe)
    if tasks is not None and not (own or foreign):
        raise click.BadParameter("name at least one benchmark, or leave the option out.", param_hint="--tasks")
    configs = _task_configs(own, recipe) if own or not foreign else []
    folders = workflow_folders(checkpoint)
    asked = [name.strip() for name in (workflow or "").split(",") if name.strip()]
    folders = _chosen(checkpoint, folders, asked, needs_workflow=bool(configs))
    reporter = ConsoleReporter(Console(stderr=True))
    with ExitStack() as stack:
        loaded = stack.enter_context(harness_tasks(foreign, folders, asked, data, harness["include"], reporter))
        with reporter.working("loading the checkpoint"):
            workflows = _load_workflows(folders, trust_remote_code)
        if recipe is not None:
            for _, processor in workflows.values():
                fix_date(processor.tokenizer, recipe.date)
        options = {
            "limit": limit if limit is not None or recipe is None else recipe.evaluation.limit,
            "seed": seed if seed is not None else (0 if recipe is None else recipe.evaluation.seed),
        }
        own_data = None if foreign else data
        reading = ((config, _sources_or_folder(config, recipe, own_data)) for config in configs)
        evaluation = score(reading, workflows, options, reporter)
        results = evaluation.results
        if loaded:
            how = {**harness, "limit": limit, "seed": seed}
            results["benchmarks"] = score_harness_tasks(loaded, workflows, asked, run, how, reporter)
    if tasks is None and not evaluation.proves_text:  # all that the run's own evaluation says
        results["text"] = prove_text(workflows, reporter)
    if recipe is not None and own_data is None:
        mark_trained(results, recipe, configs)
    if as_json:
        echo_json(results)
    else:
        names = ", ".join(dict.fromkeys([*(config.name for config in configs), *foreign]))
        Console().print(render_results_table(results, title=f"{given}: {names}"))
    require_unchanged_text(results, recipe)
    return None


def _own_and_foreign(tasks: str | None, recipe: Recipe | None) -> tuple[list[str], list[str]]:
    """Names of benchmarks that plugins offer or the run's recipe has, and those left to the harnesses."""
    names = list(dict.fromkeys(name.strip() for name in (tasks or "").split(",") if name.strip()))
    known = get_plugin_manager().names("evaluation task")
    own = [name for name in names if name in known]
    return own, [name for name in names if name not in own]


def _chosen(
    checkpoint: Path, folders: Mapping[str, Path], asked: list[str], *, needs_workflow: bool
) -> dict[str, Path]:
    """Folders of the workflows that are asked; where that is the base alone, of the first, which has it."""
    from adaptkit.errors import ModelError, unknown_name

    for name in asked:
        if name not in (TEXT, *folders):
            raise ModelError(f"{checkpoint}: {unknown_name('workflow', name, [TEXT, *folders])}")
    chosen = {name: folder for name, folder in folders.items() if name in asked or not asked}
    if not chosen and needs_workflow:
        raise click.BadParameter(
            "adaptkit's own benchmarks score a trained workflow: name one.", param_hint="--workflow"
        )
    return chosen or dict([next(iter(folders.items()))])


def _run_and_recipe(checkpoint: Path) -> tuple[Path | None, Recipe | None]:
    """The run that a checkpoint is or belongs to, and its resolved recipe, so that the same numbers come out again."""
    from adaptkit.model.run_folders import FINAL_FOLDER
    from adaptkit.recipe import load_recipe

    place = checkpoint.resolve()
    run = place.parents[1] if place.parent.name == FINAL_FOLDER else place
    path = run / "recipe.yaml"
    return (run, load_recipe(path)) if path.is_file() else (None, None)


def _task_configs(names: list[str], recipe: Recipe | None) -> list[TaskConfig]:
    """The benchmarks, with the options of the run's recipe where it has them."""
    from adaptkit.recipe import TaskConfig

    configured = [] if recipe is None else list(recipe.evaluation.tasks)
    if not names and configured:
        return configured
    if not names:
        raise click.BadParameter("name at least one benchmark; the run's recipe has none.", param_hint="--tasks")
    configs: list[TaskConfig] = []
    for name in names:
        found = [config for config in configured if config.name == name]
        if not found:
            defaults = get_plugin_manager().options("evaluation task", name, {})
            found = [TaskConfig.model_construct(name=name, options=defaults)]
        configs += found
    return configs


def _sources_or_folder(config: TaskConfig, recipe: Recipe | None, data: Path | None) -> dict[str, Any]:
    """What a benchmark reads: datasets of the run's recipe, perhaps below another folder, or a folder of its own."""
    from adaptkit.build import asked_sources, task_datasets

    if not task_datasets(config):
        return {"data": data}
    if recipe is None:
        raise click.BadParameter(
            f"{config.name} asks about datasets that a recipe names: give a run directory as the checkpoint.",
            param_hint="--tasks",
        )
    if data is not None:
        _check_folder_matters(config, recipe)
    return asked_sources(recipe, config, data)


def _check_folder_matters(config: TaskConfig, recipe: Recipe) -> None:
    from adaptkit.build import task_baselines, task_datasets

    asked = [name for name in task_datasets(config) if name not in task_baselines(config)]
    if not any(_has_relative_path(recipe.data[name].values()) for name in asked):
        raise click.BadParameter(
            f"the datasets that {config.name} asks ({', '.join(asked)}) have no path below data_root in the recipe of "
            "the run, so that another folder changes nothing.",
            param_hint="--data",
        )


def _has_relative_path(options: Mapping[str, Any]) -> bool:
    """Whether a dataset's options, or those of a table in them, name a file below the folder of the data."""
    path = options.get("path")
    inner = [value for value in options.values() if isinstance(value, Mapping)]
    return (isinstance(path, str) and not Path(path).is_absolute()) or any(map(_has_relative_path, inner))


def _load_workflows(folders: Mapping[str, Path], trust_remote_code: bool) -> dict[str, tuple[Any, Any]]:
    """Models and processors, all on one base and its encoders."""
    import torch

    from adaptkit.model.checkpoint import load_models
    from adaptkit.model.processor import load_processor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        name: (model.to(device), load_processor(folders[name], trust_remote_code=trust_remote_code))
        for name, model in load_models(folders, trust_remote_code=trust_remote_code)
    }
