"""Which benchmarks can run with the data that are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import DataError, first_line
from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, RULES, PublicBenchmark
from adaptkit.evaluation.public_data.data_folder import DataFolder
from adaptkit.evaluation.public_data.hub_folders import find_copies, names_of
from adaptkit.evaluation.public_data.stock_tasks import HARNESSES, OWN_TASKS, StockTask, find_tasks, task_files


@dataclass(frozen=True)
class TaskRow:
    """A task that can be named, and whether its data are here.

    Attributes:
        benchmark: Title of the benchmark; of a dataset that is only known by its copy its id.
        task: Name of the task or group.
        harness: The harness that runs it.
        dataset: Id of the hub's dataset that it reads.
        where: The folder that holds the data; None where they are missing or incomplete.
        lacks: What is wrong with data that are incomplete, or what to fetch.
        scorer: What the harness computes.
        official: Whose rule is reported beside it; empty if none.
        is_own: Whether the task file is ours.
    """

    benchmark: str
    task: str
    harness: str
    dataset: str
    where: Path | None
    lacks: str = ""
    scorer: str = ""
    official: str = ""
    is_own: bool = False


def list_tasks(data_dir: Path | str | None = None) -> list[TaskRow]:
    """The tasks of all named benchmarks, and those of other datasets of which there are copies.

    Args:
        data_dir: The folder with the data; without one everything is missing.

    Raises:
        DataError: There is no such folder.
    """
    folder = None if data_dir is None else DataFolder(data_dir)
    named = [row for benchmark in BENCHMARKS for row in _rows(benchmark, folder)]
    return named + ([] if folder is None else list(_other_rows(folder, {row.dataset for row in named})))


def _rows(benchmark: PublicBenchmark, folder: DataFolder | None) -> Iterator[TaskRow]:
    for name in benchmark.tasks:
        where, lacks = _state(find_tasks(name, benchmark.harness), folder, benchmark.dataset, benchmark.harness)
        yield TaskRow(
            benchmark=benchmark.title,
            task=name,
            harness=benchmark.harness,
            dataset=benchmark.dataset,
            where=where,
            lacks=lacks,
            scorer=benchmark.scorer,
            official=RULES[benchmark.official] if benchmark.official else "",
            is_own=(OWN_TASKS / HARNESSES[benchmark.harness] / f"{name}.yaml").is_file(),
        )


def _state(
    tasks: Sequence[StockTask], folder: DataFolder | None, dataset: str, harness: str
) -> tuple[Path | None, str]:
    """Where the data of tasks lie, or what they lack."""
    if not tasks:
        return None, f"{harness} is not installed"
    if folder is None:
        return None, names_of(dataset)[-1]
    try:
        places = [folder.where(task) for task in tasks]
    except DataError as error:
        return None, first_line(error)
    found = [place for place in places if place is not None]
    if len(found) == len(places):
        return found[0], ""
    return None, f"{len(found)} of {len(places)} subjects" if found else names_of(dataset)[-1]


def _other_rows(folder: DataFolder, named: set[str]) -> Iterator[TaskRow]:
    """Tasks of either harness that read a dataset of which there is a copy."""
    copies = find_copies(folder.path)
    for harness in HARNESSES:
        files = task_files(harness)
        for dataset in sorted(files.datasets):
            if dataset in named or not copies.intersection(names_of(dataset)):
                continue
            for task in files.of_dataset(dataset):
                where, _ = _state([task], folder, dataset, harness)
                if where is not None:
                    yield TaskRow(dataset, task.name, harness, dataset, where)
