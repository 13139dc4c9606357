"""The part of `adaptkit eval` that runs tasks of lmms-eval and lm-eval."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.output import FOLDER, Decorator, add_options

if TYPE_CHECKING:
    from adaptkit.evaluation.harnesses.loading import LoadedTask
    from adaptkit.reporting import Reporter

harness_options: Decorator = add_options(
    click.option(
        "--num-fewshot", type=click.IntRange(min=0), show_default="the task's", help="Examples before each question."
    ),
    click.option(
        "--apply-chat-template/--no-apply-chat-template",
        default=False,
        show_default=True,
        help="Make turns of lm-eval's texts. Tasks of lmms-eval always are.",
    ),
    click.option("--system-prompt", metavar="TEXT", help="Before each question of the harnesses' tasks."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Requests of the harnesses that run at once.",
    ),
    click.option(
        "--include-path", "include", type=FOLDER, multiple=True, help="Folder with task files of your own; repeatable."
    ),
    click.option(
        "--list-tasks", is_flag=True, help="Only list the known public benchmarks, and which of them can run on --data."
    ),
    click.option(
        "--fresh", is_flag=True, help="Ask everything again, instead of going on with the answers that are kept."
    ),
)
"""Options that concern tasks of the harnesses alone."""


def show_tasks(data: Path | None, as_json: bool) -> None:
    """Print which public benchmarks there are, and which can run with the data that are here."""
    from rich.table import Table

    from adaptkit.cli.terminal import Console, echo_json, styled
    from adaptkit.evaluation.public_data.listing import list_tasks

    rows = list_tasks(data)
    if as_json:
        echo_json([{**asdict(row), "where": row.where and str(row.where)} for row in rows])
        return
    table = Table(title="Public benchmarks", title_justify="left", title_style="bold")
    for column in ("benchmark", "--tasks", "harness", "data"):
        table.add_column(column, no_wrap=column == "--tasks")
    for row in rows:
        place = os.path.relpath(row.where, data) if row.where and data else ""
        state = styled(f"here: {place}", "green") if row.where else f"missing: {row.lacks}"
        table.add_row(row.benchmark, row.task, row.harness, state)
    table.caption = "Every other task of lmms-eval and lm-eval can be named, too."
    if data is None:
        table.caption += " --data DIR shows which can run on what is in a folder."
    table.caption_justify = "left"
    Console().print(table)


@contextmanager
def harness_tasks(
    names: Sequence[str],
    folders: Mapping[str, Path],
    asked: Sequence[str],
    data: Path | None,
    include: Sequence[Path],
    reporter: Reporter,
) -> Iterator[list[LoadedTask]]:
    """Tasks by name, with their data, which the workflows that are asked can be asked; none where none are named.

    Args:
        folders: Of the workflows.
        asked: Names of workflows; empty for any.
    """
    if not names:
        yield []
        return
    from adaptkit.inference.routing import AUTO, saved_modalities
    from adaptkit.run.benchmarks import check_media, find_benchmarks, loaded_benchmarks

    tasks = find_benchmarks(names, include, reporter, data)
    with loaded_benchmarks(tasks, data, include, reporter) as loaded:
        check_media(loaded, asked or [AUTO], saved_modalities(folders))
        yield loaded


def score_harness_tasks(
    loaded: Sequence[LoadedTask],
    workflows: Mapping[str, tuple[Any, Any]],
    asked: Sequence[str],
    run: Path | None,
    options: Mapping[str, Any],
    reporter: Reporter,
) -> dict[str, Any]:
    """Sections of results, which a run keeps.

    Args:
        loaded: The tasks.
        workflows: Models and processors, all on one base.
        asked: Names of workflows; empty for any.
        run: The run directory, if the checkpoint is of one.
        options: Of the command: `limit`, `seed` and those of `harness_options`.
    """
    from adaptkit.evaluation.harnesses.running import HarnessSettings
    from adaptkit.evaluation.harnesses.store import AnswerStore
    from adaptkit.inference import Session
    from adaptkit.inference.routing import AUTO
    from adaptkit.run.benchmarks import EVAL_FOLDER, answers_file, run_benchmarks

    names = ("limit", "seed", "num_fewshot", "apply_chat_template", "system_prompt")
    settings = HarnessSettings(
        **{name: options[name] for name in names}, output_dir=None if run is None else run / EVAL_FOLDER
    )
    store = AnswerStore(answers_file(run), fresh=options["fresh"])
    model = next(iter(workflows.values()))[0]
    with Session(model.base, workflows, max_batch_size=options["batch_size"]) as session:
        sections = run_benchmarks(loaded, session, asked or [AUTO], settings, store, reporter, run)
    if run is not None:
        reporter.message(f"The scores are kept in {run / 'results.json'} and shown in the run's report.")
    return sections
