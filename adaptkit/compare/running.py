"""Running all variants with all seeds, each in a process of its own, as far as that is still to be done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from adaptkit.compare.variants import Variant
from adaptkit.compare.worker import FAILED_FILE, MEASURED_FILE, VARIANT_FILE
from adaptkit.errors import RecipeError, RunError, join_lines
from adaptkit.files.loading import read_json
from adaptkit.files.writing import write_text
from adaptkit.recipe import Recipe, dump_recipe, load_recipe
from adaptkit.run.runner import METRICS_FILE
from adaptkit.run.scoring import RESULTS_FILE
from adaptkit.training.metrics import read_metrics

LOG_FILE = "log.txt"
WORKER = (sys.executable, "-m", "adaptkit.cli.compare_worker")
"""What does a run; its directory is added."""

_POLL_S = 0.5


@dataclass(frozen=True)
class Planned:
    """One run of one variant.

    Attributes:
        variant: The variant's name.
        seed: Of the run.
        recipe: With that seed.
        directory: The run directory.
    """

    variant: str
    seed: int
    recipe: Recipe
    directory: Path

    @property
    def title(self) -> str:
        """As it is called towards the user."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether it was done, now or earlier."""
        return (self.directory / MEASURED_FILE).is_file() and (self.directory / RESULTS_FILE).is_file()

    def results(self) -> dict[str, Any]:
        """Its scores, once it is finished."""
        return read_json(self.directory / RESULTS_FILE, RunError)

    def measured(self) -> dict[str, Any]:
        """Its costs, once it is finished."""
        return read_json(self.directory / MEASURED_FILE, RunError)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run.
        reason: Why it failed; empty if it did not.
        kept: Whether an earlier comparison had finished it.
        seconds: Spent on it now.
    """

    run: Planned
    reason: str = ""
    kept: bool = False
    seconds: float = 0.0


@dataclass
class Watcher:
    """Called with what happens, for a progress display; every method is optional.

    Attributes:
        started: A run begins.
        stepped: A run's stage and number of the step it has logged last.
        ended: A run is over.
    """

    started: Callable[[Planned], None] = field(default=lambda run: None)
    stepped: Callable[[Planned, str, int], None] = field(default=lambda run, stage, step: None)
    ended: Callable[[Outcome], None] = field(default=lambda outcome: None)


def plan_runs(variants: Sequence[Variant], output: Path) -> list[Planned]:
    """All runs, seed after seed, so that every variant has been seen once before any is run again.

    Raises:
        RecipeError: The folder holds runs of another recipe of the same name.
    """
    seeds = list(variants[0].recipes)
    runs = [
        Planned(v.name, seed, v.recipes[seed], output / v.name / f"seed-{seed}") for seed in seeds for v in variants
    ]
    changed = [run for run in runs if not _same_recipe(run)]
    if changed:
        opening = "these folders hold runs of other recipes (or settings) than those to be compared:"
        advice = "Name another folder with --output, or delete these to run them again."
        raise RecipeError(join_lines([opening, *(f"  {run.directory}" for run in changed), advice]))
    return runs


@contextmanager
def only_comparison_in(output: Path) -> Iterator[None]:
    """Keep a second comparison out of a folder.

    Raises:
        RecipeError: Another one is running there.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RecipeError(
            f"another comparison is running in {output}. Wait for it, or name another folder with --output."
        ) from None
    try:
        yield
    finally:
        lock.release()


def run_all(runs: Sequence[Planned], *, jobs: int = 1, watcher: Watcher | None = None) -> list[Outcome]:
    """Do every run that is not finished, resuming interrupted ones; those that fail do not stop the others.

    Args:
        runs: What `plan_runs` returned.
        jobs: Processes at a time; with more than one, each computes in one thread.

    Returns:
        One outcome a run, in the order of `runs`.
    """
    watcher = watcher or Watcher()
    outcomes: dict[int, Outcome] = {}
    waiting = []
    for number, run in enumerate(runs):
        if run.finished:
            outcomes[number] = Outcome(run, kept=True)
            watcher.ended(outcomes[number])
        else:
            waiting.append(number)
    active: dict[int, _Process] = {}
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                number = waiting.pop(0)
                active[number] = _Process(runs[number], one_thread=jobs > 1)
                watcher.started(runs[number])
            time.sleep(_POLL_S)
            for number, process in list(active.items()):
                if process.running:
                    watcher.stepped(process.run, *process.last_step())
                else:
                    outcomes[number] = process.outcome()
                    del active[number]
                    watcher.ended(outcomes[number])
    finally:
        for process in active.values():
            process.stop()
    return [outcomes[number] for number in range(len(runs))]


class _Process:
    """The process of a run; it ends with this one, however this one ends."""

    def __init__(self, run: Planned, *, one_thread: bool) -> None:
        self.run = run
        run.directory.mkdir(parents=True, exist_ok=True)
        write_text(run.directory / VARIANT_FILE, dump_recipe(run.recipe))
        (run.directory / FAILED_FILE).unlink(missing_ok=True)
        self._log: IO[bytes] = (run.directory / LOG_FILE).open("wb")
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [*WORKER, str(run.directory)],
            stdin=subprocess.PIPE,  # held open: the run ends when it closes
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(os.environ) | ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if one_thread else {}),
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def last_step(self) -> tuple[str, int]:
        lines = read_metrics(self.run.directory / METRICS_FILE)
        return (str(lines[-1]["stage"]), int(lines[-1]["step"])) if lines else ("", 0)

    def outcome(self) -> Outcome:
        """How it ended."""
        self.stop()
        seconds = time.monotonic() - self._started
        if self._process.returncode == 0:
            return Outcome(self.run, seconds=seconds)
        return Outcome(self.run, self._reason(), seconds=seconds)

    def stop(self) -> None:
        if self.running:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._log.close()

    def _reason(self) -> str:
        failed = self.run.directory / FAILED_FILE
        if failed.is_file():
            return str(read_json(failed, RunError)["reason"])
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = "; out of memory?" if code == -9 else ""
        return f"the process {how}{hint}; see {self.run.directory / LOG_FILE}"


def _same_recipe(run: Planned) -> bool:
    """Whether a directory holds this run, or nothing yet."""
    path = run.directory / VARIANT_FILE
    return not path.is_file() or _substance(load_recipe(path)) == _substance(run.recipe)


def _substance(recipe: Recipe) -> Mapping[str, Any]:
    """What decides a run's weights and scores."""
    return recipe.model_dump(exclude={"description", "output_dir", "logging"})
