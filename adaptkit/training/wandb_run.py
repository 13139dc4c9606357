"""Weights & Biases: one run there for all stages of a run directory, which is continued where that is resumed."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from adaptkit.errors import RunError, first_line
from adaptkit.files.writing import write_text

ID_FILE = "wandb_run_id.txt"
"""In a run directory: what its run is called there."""

_started: list[Any] = []
"""The run that this process has started, if it has; one of the user's own is used, and left open."""


class WandbCallback(TrainerCallback):  # type: ignore[misc]
    """Sends metrics to Weights & Biases, in the project named by `WANDB_PROJECT`.

    transformers' own callback calls the metrics of every stage `train/*` and counts their steps from 1, so that the
    stages of a run are drawn over each other; and a resumed run is a new one there.

    Args:
        stage: Prefix of the metrics' names.
        directory: The run directory.
        config: The stage's settings.
    """

    def __init__(self, stage: str, directory: Path, config: Mapping[str, Any]) -> None:
        self._stage = stage
        self._directory = directory
        self._config = config

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            wandb = importlib.import_module("wandb")
            if wandb.run is None:
                _start(wandb, self._directory)
            wandb.config.update({self._stage: dict(self._config)}, allow_val_change=True)
            wandb.define_metric(f"{self._stage}/*", step_metric=f"{self._stage}/step")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            values = {f"{self._stage}/{name}": value for name, value in logs.items()}
            importlib.import_module("wandb").log({**values, f"{self._stage}/step": state.global_step})


@contextmanager
def wandb_run_closed() -> Iterator[None]:
    """Close the run that was started in here, so that the next one of this process is another one there."""
    try:
        yield
    except BaseException:
        _close(exit_code=1)
        raise
    _close(exit_code=0)


def _start(wandb: Any, directory: Path) -> None:
    """Start the run of a directory, or continue it. Variables of W&B's own are stronger.

    Raises:
        RunError: W&B starts none, for want of a login or a network.
    """
    names = {"project": "WANDB_PROJECT", "dir": "WANDB_DIR", "id": "WANDB_RUN_ID", "resume": "WANDB_RESUME"}
    wanted = {"project": "adaptkit", "dir": str(directory), "id": _run_id(directory), "resume": "allow"}
    options = {name: value for name, value in wanted.items() if not os.environ.get(names[name])}
    try:
        _started.append(wandb.init(**options))
    except Exception as error:  # of several kinds, some of which older versions do not have
        raise RunError(
            f"logging.report_to: Weights & Biases starts no run ({first_line(error)}). Log in with `wandb login`, or "
            "set WANDB_MODE=offline to keep everything here and send it later with `wandb sync`."
        ) from error


def _close(exit_code: int) -> None:
    while _started:
        _started.pop().finish(exit_code=exit_code)


def _run_id(directory: Path) -> str:
    """What the run of a directory is called there: a new name the first time, then always that one."""
    path = directory / ID_FILE
    if not path.is_file():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()
