"""Public benchmarks on a checkpoint: tasks of the harnesses, through the base, its workflows, or both side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.evaluation.benchmark_rows import SECTION, update_report
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.asks import refuse_kinds
from adaptkit.evaluation.harnesses.catalog import HarnessTask, find_harness_task
from adaptkit.evaluation.harnesses.identity import identities
from adaptkit.evaluation.harnesses.loading import LoadedTask, load_task, media_kinds, without_judge
from adaptkit.evaluation.harnesses.quiet import require_harnesses
from adaptkit.evaluation.harnesses.running import HarnessSettings, run_task
from adaptkit.evaluation.harnesses.store import ANSWERS_FILE, AnswerStore
from adaptkit.evaluation.public_data import DataFolder, local_datasets
from adaptkit.files.loading import read_json
from adaptkit.files.writing import write_json
from adaptkit.inference import Session
from adaptkit.inference.routing import AUTO
from adaptkit.model.run_folders import workflow_folders
from adaptkit.reporting import Reporter
from adaptkit.run.cards import record_scores
from adaptkit.run.scoring import REPORT_FILE, RESULTS_FILE

EVAL_FOLDER = "eval"
"""Of a run: answers that are kept, and what tasks write for servers."""


def find_benchmarks(
    names: Iterable[str], include: Sequence[Path], reporter: Reporter, data: Path | None = None
) -> list[HarnessTask]:
    """Tasks of the harnesses by name, of which none asks a service.

    Raises:
        PluginError: The harnesses are not installed.
        DataError: There is no such task, the folder lacks its data, or it has a judge.
    """
    require_harnesses()
    tasks = [find_harness_task(name, include) for name in names]
    if data is not None:  # said before the harnesses are imported, which takes long
        DataFolder(data).require(leaf for task in tasks for leaf in task.leaves)
    found = []
    for task in tasks:
        with reporter.working(f"reading the task {task.name} of {task.harness}"):
            found.append(without_judge(task, include))
        if found[-1].note:
            reporter.message(f"{found[-1].note}, so {found[-1].name} is run instead: nothing is sent to a judge.")
    return found


@contextmanager
def loaded_benchmarks(
    tasks: Sequence[HarnessTask], data: Path | None, include: Sequence[Path], reporter: Reporter
) -> Iterator[list[LoadedTask]]:
    """Tasks with their data; inside, local copies take the place of the hub's where a folder is given.

    Raises:
        DataError: Data are missing; it says what to fetch.
    """
    leaves = [leaf for task in tasks for leaf in task.leaves]
    with ExitStack() as stack:
        if data is not None:
            with reporter.progress("reading data") as progress:
                stack.enter_context(local_datasets(leaves, data, progress))
        loaded = []
        for task in tasks:
            with reporter.working(f"loading the data of {task.name}"):
                loaded.append(load_task(task, include))
        yield loaded


def check_media(
    loaded: Sequence[LoadedTask], workflows: Sequence[str], modalities: Mapping[str, Sequence[str]]
) -> None:
    """Refuse tasks that no workflow can be asked, before models are loaded.

    Args:
        workflows: Those that are to be asked; `auto` is any.
        modalities: Which of them each takes.

    Raises:
        DataError: It names the task and its media.
    """
    for one in loaded:
        kinds = media_kinds(one)
        asked = modalities if AUTO in workflows else {name: modalities[name] for name in workflows}
        refuse_kinds(one.task.name, kinds, asked)


def run_benchmarks(
    loaded: Sequence[LoadedTask],
    session: Session,
    workflows: Sequence[str],
    settings: HarnessSettings,
    store: AnswerStore,
    reporter: Reporter,
    run: Path | None = None,
) -> dict[str, Any]:
    """Scores of tasks.

    Args:
        workflows: Which to ask; `auto` sends media to one that takes them, and text to the base. Tasks with media that
            one of several does not take are not asked of it.
        run: A run directory, which keeps the scores of each task as soon as they are there.

    Returns:
        A section for each task, with the scores of each workflow side by side.
    """
    found: dict[str, Any] = {}
    identity = identities(session)
    for one in loaded:
        kinds = media_kinds(one)
        for name in workflows:
            takes = session.modalities.get(name, [])
            if name != AUTO and (not kinds <= set(takes) or (one.task.has_media and not takes)):
                continue
            label = one.task.name if len(workflows) == 1 else f"{one.task.name} through {name}"
            with reporter.progress(label) as progress:
                asker = Asker(
                    session,
                    workflow=name,
                    store=store,
                    system_prompt=settings.system_prompt,
                    seed=settings.seed or 0,
                    identity=identity,
                    watch=progress,
                )
                sections = run_task(one, asker, settings)
            _join(found, sections)
            if run is not None:
                keep_benchmarks(run, sections)
    return found


def _join(found: dict[str, Any], sections: Mapping[str, Any]) -> None:
    """Put scores of another workflow beside those that are there."""
    for name, section in sections.items():
        if name in found:
            section = {**section, "scores": {**found[name]["scores"], **section["scores"]}}
        found[name] = section


def answers_file(run: Path | None) -> Path:
    """Where answers are kept: in the run, else in the user's cache, since a checkpoint's folder may be anybody's."""
    if run is not None:
        return run / EVAL_FOLDER / ANSWERS_FILE
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "adaptkit" / EVAL_FOLDER / ANSWERS_FILE


def keep_benchmarks(run: Path, sections: Mapping[str, Any]) -> None:
    """Write scores into a run's `results.json`, and into its report where there is one.

    Scores of the same task by another workflow stay, if they were asked in the same way.
    """
    path = run / RESULTS_FILE
    results = read_json(path) if path.is_file() else {}
    kept = dict(results.get(SECTION) or {})
    for name, section in sections.items():
        before = kept.get(name)
        if before is not None and _how(before) == _how(section):
            section = {**section, "scores": {**before["scores"], **section["scores"]}}
        kept[name] = section
    results[SECTION] = kept
    write_json(path, results)
    record_scores(run, _finished(run), results)
    report = run / REPORT_FILE
    if report.is_file():
        update_report(report, results)


def _finished(run: Path) -> list[str]:
    """Names of a run's workflows; none where they are not finished, and have no cards."""
    try:
        return list(workflow_folders(run))
    except ModelError:
        return []


def _how(section: Mapping[str, Any]) -> dict[str, Any]:
    """How a task was asked, but for its first prompt, which a workflow's template writes."""
    return {name: value for name, value in section["harness"].items() if name != "prompt"}
