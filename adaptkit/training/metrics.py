"""A stage's metrics: a JSONL file, and TensorBoard or Weights & Biases if `report_to` names them."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from adaptkit.errors import RecipeError, RunError, unknown_name
from adaptkit.files.writing import explain_write_error, write_text
from adaptkit.processes.group import is_main_process
from adaptkit.training.throughput import SpeedMeter, Throughput
from adaptkit.training.wandb_run import WandbCallback

REPORTERS = ("tensorboard", "wandb")
"""Names in a recipe, which are those of the packages."""


class MetricsLog:
    """A stage's lines in a JSONL file that several stages may share.

    Each line has the stage, the step and numbers. A stage that starts or resumes first calls `drop_after` with the
    step it resumes from, so that no step occurs twice.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage
        self.latest: dict[str, Any] = {}
        """The line that was written last."""

    def drop_after(self, step: int) -> None:
        """Drop this stage's lines after `step`, and any line that a kill cut off."""
        kept = [
            line for line in read_metrics(self.path) if line.get("stage") != self.stage or line.get("step", 0) <= step
        ]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line.

        Raises:
            RunError: The file cannot be written.
        """
        line = {"stage": self.stage, "step": step, **{key: _plain(value) for key, value in values.items()}}
        self.latest = line
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            hint = "Continue with `--resume auto` then."
            raise RunError(explain_write_error(error, self.path, hint)) from error

    def lines(self) -> list[dict[str, Any]]:
        """This stage's lines, oldest first."""
        return [line for line in self.all_lines() if line.get("stage") == self.stage]

    def all_lines(self) -> list[dict[str, Any]]:
        """The lines of all stages, oldest first."""
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line cut off by a kill is skipped."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError):
            continue
    return [line for line in lines if isinstance(line, dict)]


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Writes the trainer's logs to a `MetricsLog`, with the speed and the learning rate of each part."""

    def __init__(self, log: MetricsLog, throughput: Throughput) -> None:
        self._log = log
        self._meter = SpeedMeter(throughput)
        self._rates: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._meter.restart()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step + 1
        if step == 1 or step % state.logging_steps == 0:  # `on_log` comes after the schedule's step
            self._rates = learning_rates(kwargs.get("optimizer"))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if "loss" not in logs:
            self._meter.skip(logs["validation/seconds"])
            self._log.write(state.global_step, logs)
            return
        extra = {"learning_rates": self._rates} if len(set(self._rates.values())) > 1 else {}
        speed = self._meter.speed()
        self._meter.restart()
        self._log.write(state.global_step, {**logs, **extra, **speed.as_metrics(args.device)})


def learning_rates(optimizer: Any) -> dict[str, float]:
    """Current learning rate of each part; the highest where a part has several."""
    rates: dict[str, float] = {}
    for group in getattr(optimizer, "param_groups", ()):
        part = group.get("part", "")
        rates[part] = max(rates.get(part, 0.0), float(group["lr"]))
    return rates


class _TensorBoard(TensorBoardCallback):  # type: ignore[misc]
    """Writes validation under its own name, which transformers' callback would call `train/validation`."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            super().on_log(args, state, control, logs=logs, **kwargs)
            return
        for name, value in logs.items() if state.is_world_process_zero else ():
            if name.startswith("validation/"):
                self.tb_writer.add_scalar(name, value, state.global_step)


def build_reporters(
    report_to: Sequence[str],
    stage: str,
    directory: Path,
    config: Mapping[str, Any],
    num_completed_steps: int = 0,
    log: MetricsLog | None = None,
) -> list[TrainerCallback]:
    """Callbacks for the services in `report_to`.

    Args:
        directory: Of the stage.
        num_completed_steps: Steps of the checkpoint that the stage resumes from; later ones are hidden.
            All are where it is -1.
        log: What a service gets that draws all stages of a run directory as one run.
    """
    reporters: list[TrainerCallback] = []
    if "tensorboard" in report_to and is_main_process():
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        writer = SummaryWriter(str(directory / "tensorboard"), purge_step=num_completed_steps + 1)
        reporters.append(_TensorBoard(writer))
    if "wandb" in report_to:
        reporters.append(WandbCallback(log or MetricsLog(directory / "metrics.jsonl", stage), config))
    return reporters


def require_reporters(report_to: Sequence[str]) -> None:
    """Check that services exist, and that their packages are installed.

    Raises:
        RecipeError: A name is unknown, or its package is not installed.
    """
    for name in report_to:
        if name not in REPORTERS:
            raise RecipeError(f"logging.report_to: {unknown_name('service', name, REPORTERS)}")
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"logging.report_to: the package {name!r} is not installed. Install it with `pip install {name}`, or "
                "remove it from the list."
            )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # not part of JSON
    return value.item() if hasattr(value, "item") else value
