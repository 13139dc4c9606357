"""Losses on held-out rows while a stage trains, the best checkpoint by them, and when to stop early.

Nothing of it reaches the training: no random number is drawn, no gradient is made, and the model is left in the mode
it was found in.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.data.validation import Kind, TokenScores, ValidationData, as_metrics, merged
from adaptkit.errors import RunError
from adaptkit.processes.group import SHARDED, from_all_processes, num_processes, process_index
from adaptkit.reporting import Reporter
from adaptkit.stage import StageConfig
from adaptkit.training import checkpoints
from adaptkit.training.distributed.trainer import BatchShards, Repeated, WithRepeats
from adaptkit.training.interruption import leave_signals_alone
from adaptkit.training.progress import ProgressCallback
from adaptkit.training.trainer import WorkflowTrainer

LOSS = "validation/loss"
SECONDS = "validation/seconds"
BEST_STEP = "validation/best_step"

Watch = Callable[[int, int], None]
"""Called with the batches done and in all."""


class _Rows(Dataset[Any]):
    """Rows with what they count for; those that only keep another process company count for nothing."""

    def __init__(self, data: ValidationData) -> None:
        self._data = data
        self._rows = WithRepeats(data.dataset)

    def __getitem__(self, index: Any) -> tuple[list[Kind], Any]:
        row = self._rows[index]
        return ([] if isinstance(index, Repeated) else self._data.kinds(index, row)), row


def score_rows(
    trainer: WorkflowTrainer, data: ValidationData, settings: StageConfig, strategy: str, watch: Watch
) -> dict[Kind, TokenScores]:
    """Sums of what all processes find in their shards of the rows."""
    model: Any = trainer.model_wrapped if strategy in SHARDED else trainer.model
    size = settings.size_per_device
    batches = BatchSampler(data.order, size * num_processes(), drop_last=False)

    def collate(rows: list[tuple[list[Kind], Any]]) -> tuple[list[list[Kind]], Any]:
        return [kinds for kinds, _ in rows], data.collator([row for _, row in rows])

    workers = settings.dataloader_num_workers
    loader: DataLoader[Any] = DataLoader(
        _Rows(data),
        batch_sampler=BatchShards(batches, process_index(), num_processes()),
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),
        worker_init_fn=leave_signals_alone if workers > 0 else None,
    )
    sums: dict[Kind, TokenScores] = {}
    with _undisturbed(), trainer.model.scoring_tokens(), trainer.compute_loss_context_manager():
        for number, (kinds, batch) in enumerate(loader):
            watch(number, len(loader))
            batch = trainer._prepare_inputs(batch)
            scored = _by_row(model(**batch), batch["labels"])
            for row, found in zip(kinds, scored, strict=True):
                for kind in row:
                    sums.setdefault(kind, TokenScores()).add(found)
    if strategy == "fsdp":
        _reshard(trainer.model)
    return merged(from_all_processes(sums))


def _by_row(output: Any, labels: Tensor) -> list[TokenScores]:
    """The scores of a batch's supervised tokens, row by row."""
    supervised = labels[:, 1:] != IGNORE_INDEX
    counts = supervised.sum(1).tolist()
    if not sum(counts):  # the model scored something in their place
        return [TokenScores(rows=1) for _ in counts]
    losses, hits = output.loss.double().split(counts), output.logits.split(counts)
    sums = torch.stack([torch.stack([loss.sum(), hit.sum().double()]) for loss, hit in zip(losses, hits)]).tolist()
    return [TokenScores(loss, int(hit), count, 1) for (loss, hit), count in zip(sums, counts)]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave all random numbers to the training."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _reshard(model: Any) -> None:
    """Let go of whole weights, which a pass without a backward pass keeps."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


class ValidationCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Validates a stage, keeps its best checkpoint, and ends it where `patience` says so.

    What is the best so far is part of the trainer's state, and so of every checkpoint.

    Attributes:
        trainer: Of the stage; set before it trains.
    """

    trainer: WorkflowTrainer

    def __init__(
        self, data: ValidationData, settings: StageConfig, strategy: str, reporter: Reporter, progress: ProgressCallback
    ) -> None:
        assert settings.validation is not None
        self._data = data
        self._stage = settings
        self._settings = settings.validation
        self._strategy = strategy
        self._reporter = reporter
        self._progress = progress
        self._best_step: int | None = None
        self._best_loss = math.inf
        self._misses = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, in the form of transformers."""
        best = {} if self._best_step is None else {"best_step": self._best_step, "best_loss": self._best_loss}
        return {"args": {}, "attributes": {**best, "misses": self._misses, "measured": self._settings.measured()}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._log(state, control, self._score(args, state))
            return
        saved = checkpoints.validation_in(state.stateful_callbacks)
        if saved.get("measured") == self._settings.measured():
            self._best_step, self._best_loss = saved.get("best_step"), saved.get("best_loss", math.inf)
            self._misses = saved["misses"]
        elif saved:
            self._report("validation has other data or another measure than before: the best is sought anew", state)
        state.stateful_callbacks[checkpoints.VALIDATION] = self.state()  # which saving expects

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = self._stage.validate_every
        if not ((every and state.global_step % every == 0) or state.global_step >= state.max_steps):
            return
        values = self._score(args, state)
        loss = values[LOSS if self._settings.measure is None else f"validation/data/{self._settings.measure}/loss"]
        improved = loss < self._best_loss
        self._misses = 0 if improved else self._misses + 1
        if improved:
            self._best_step, self._best_loss = state.global_step, loss
            control.should_save = control.should_save or bool(self._settings.save_best)
        best = {} if self._best_step is None else {BEST_STEP: self._best_step}
        self._log(state, control, values | best)
        if self._settings.patience is not None and self._misses >= self._settings.patience:
            control.should_save = control.should_training_stop = True
            if state.global_step < state.max_steps:
                self._reporter.message(
                    f"stage {self._stage.name!r} stops after step {state.global_step:,} of {state.max_steps:,}: in "
                    f"{self._misses} validations in a row the loss was not below {self._best_loss:.4g}, that of step "
                    f"{self._best_step:,} (validation.patience)"
                )

    def _score(self, args: Any, state: Any) -> dict[str, float]:
        started = time.perf_counter()
        watch = partial(self._progress.validating, args=args, state=state)
        sums = score_rows(self.trainer, self._data, self._stage, self._strategy, watch)
        return {**as_metrics(sums), SECONDS: round(time.perf_counter() - started, 3)}

    def _log(self, state: Any, control: Any, values: Mapping[str, Any]) -> None:
        due = control.should_log
        self.trainer.log(dict(values))
        control.should_log = due  # logging took the step's own loss for logged
        parts = [f"{name} {values[f'validation/data/{name}/loss']:.4f}" for name in self._settings.data]
        best = ", the best so far" if values.get(BEST_STEP) == state.global_step else ""
        self._report(
            f"validation loss {values[LOSS]:.4f}{best}, token accuracy {values['validation/token_accuracy']:.1%}"
            f"{' (' + ', '.join(parts) + ')' if len(parts) > 1 else ''}",
            state,
        )

    def _report(self, text: str, state: Any) -> None:
        if state.is_world_process_zero:
            self._reporter.message(f"{self._stage.name}  {state.global_step}/{state.max_steps}  {text}")


def has_stopped_early(checkpoint: Path, settings: StageConfig) -> bool:
    """Whether a stage that is at a checkpoint has ended there by the patience that it has now."""
    validation = settings.validation
    if validation is None or validation.patience is None:
        return False
    saved = checkpoints.saved_validation(checkpoint)
    return saved.get("measured") == validation.measured() and int(saved.get("misses", 0)) >= validation.patience


def ending(settings: StageConfig, last: Path, best: Path, final: Path) -> str:
    """Which weights a stage ends with, in words."""
    stage, step = f"stage {settings.name!r} ends with", checkpoints.step_of(best)
    if final == best == last:
        return f"{stage} its last weights, which are the best by validation"
    if final == best:
        return f"{stage} its best weights by validation, those of step {step:,} ({best})"
    assert settings.validation is not None
    kept = f" ({best}); validation.load_best: true would end with those" if settings.validation.save_best else ""
    return f"{stage} its last weights; the best by validation are those of step {step:,}{kept}"


def final_checkpoint(last: Path, settings: StageConfig) -> Path:
    """The checkpoint whose weights a stage ends with.

    Raises:
        RunError: It should be the best one, and that is gone.
    """
    if settings.validation is None or not settings.validation.load_best:
        return last
    best = checkpoints.best_of(last) or last
    if not checkpoints.is_checkpoint(best):
        raise RunError(
            f"stage {settings.name!r} ends with its best weights (validation.load_best), and {best} is not there any "
            "more. Restore it, or set load_best: false to end with the last ones."
        )
    return best
