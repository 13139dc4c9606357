"""Weights & Biases: one run there for all stages of a run directory, which is continued where that is resumed."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from adaptkit.errors import RunError, first_line
from adaptkit.files.writing import write_text

ID_FILE = "wandb_run_id.txt"
"""In a run directory: what its run is called there."""

_started: list[Any] = []
"""The run that this process has started, if it has; one of the user's own is used, and left open."""


class Log(Protocol):
    """A stage's lines in the metrics of its run directory."""

    path: Path
    stage: str
    latest: dict[str, Any]

    def all_lines(self) -> list[dict[str, Any]]:
        """The lines of all stages, oldest first."""


class WandbCallback(TrainerCallback):  # type: ignore[misc]
    """Sends the lines of a run directory's metrics to Weights & Biases, in the project named by `WANDB_PROJECT`.

    transformers' own callback calls the metrics of every stage `train/*` and counts their steps from 1, so that the
    stages of a run are drawn over each other; and a resumed run is a new one there.

    Args:
        log: Of the stage, which prefixes the metrics' names. What it has just written is sent.
        config: The stage's settings.
    """

    def __init__(self, log: Log, config: Mapping[str, Any]) -> None:
        self._log = log
        self._config = config

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            wandb = importlib.import_module("wandb")
            if wandb.run is None:
                _start(wandb, self._log)
            wandb.config.update({self._log.stage: dict(self._config)}, allow_val_change=True)
            _define(wandb, self._log.stage)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            importlib.import_module("wandb").log(dict(_named(self._log.latest)))


def _define(wandb: Any, stage: str) -> None:
    wandb.define_metric(f"{stage}/*", step_metric=f"{stage}/step")


def _named(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics, named for W&B."""
    prefix = prefix or str(line.get("stage"))
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


@contextmanager
def wandb_run_closed() -> Iterator[None]:
    """Close the run that was started in here, so that the next one of this process is another one there."""
    try:
        yield
    except BaseException:
        _close(exit_code=1)
        raise
    _close(exit_code=0)


def _start(wandb: Any, log: Log) -> None:
    """Start the run of a directory, or continue it. Variables of W&B's own are stronger.

    A run that W&B does not know yet, as in offline mode, whose files lack what a kill cut off, gets what the directory
    holds of earlier.

    Raises:
        RunError: W&B starts none, for want of a login or a network.
    """
    directory = log.path.parent
    names = {"project": "WANDB_PROJECT", "dir": "WANDB_DIR", "id": "WANDB_RUN_ID", "resume": "WANDB_RESUME"}
    wanted = {"project": "adaptkit", "dir": str(directory), "id": _run_id(directory), "resume": "allow"}
    options = {name: value for name, value in wanted.items() if not os.environ.get(names[name])}
    try:
        run = wandb.init(**options)
    except Exception as error:  # of several kinds, some of which older versions do not have
        raise RunError(
            f"logging.report_to: Weights & Biases starts no run ({first_line(error)}). Log in with `wandb login`, or "
            "set WANDB_MODE=offline to keep everything here and send it later with `wandb sync`."
        ) from error
    _started.append(run)
    earlier = [] if run.resumed else log.all_lines()
    for stage in dict.fromkeys(str(line.get("stage")) for line in earlier):
        _define(wandb, stage)
    for line in earlier:
        wandb.log(dict(_named(line)))


def _close(exit_code: int) -> None:
    while _started:
        _started.pop().finish(exit_code=exit_code)


def _run_id(directory: Path) -> str:
    """What the run of a directory is called there: a new name the first time, then always that one."""
    path = directory / ID_FILE
    if not path.is_file():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()
