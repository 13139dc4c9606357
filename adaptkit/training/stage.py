"""One training stage, from its start or a checkpoint to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from adaptkit.data.validation import ValidationData
from adaptkit.errors import DataError, ModelError, RecipeError, RunStoppedError
from adaptkit.files.failures import LOWER, machine_failures
from adaptkit.files.writing import make_folder, remove_leftovers
from adaptkit.processes.group import (
    ENGINES,
    SHARDED,
    ZERO_STAGES,
    any_process,
    check_strategy,
    is_main_process,
    num_processes,
    on_main_process,
)
from adaptkit.reporting import Reporter
from adaptkit.stage import StageConfig
from adaptkit.training import checkpoints
from adaptkit.training.distributed.strategies import FrozenShards, check_optimizers, deepspeed_state, shard
from adaptkit.training.distributed.trainer import DistributedTrainer
from adaptkit.training.interruption import StopCallback, StopRequest
from adaptkit.training.metrics import MetricsCallback, MetricsLog, build_reporters, require_reporters
from adaptkit.training.preparation import prepared
from adaptkit.training.progress import ProgressCallback
from adaptkit.training.throughput import Throughput
from adaptkit.training.trainer import WorkflowTrainer, build_arguments, stage_identity
from adaptkit.training.validation import ValidationCallback, ending, final_checkpoint, has_stopped_early


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    Attributes:
        metrics: Its lines of `metrics.jsonl`, including those written before an interruption.
        seconds: Time spent training, in this process.
        final_step: Optimizer steps behind the weights.
        checkpoint: The last checkpoint, or the best by validation where the stage ends with that.
    """

    metrics: list[dict[str, Any]]
    seconds: float
    final_step: int
    checkpoint: Path


def train_stage(
    model: nn.Module,
    dataset: Dataset[Any],
    collator: Callable[[list[Any]], Any],
    settings: StageConfig,
    *,
    sampler: Sampler[Any],
    output_dir: Path,
    resume: Path | str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    processor: Any = None,
    reporter: Reporter | None = None,
    metrics_path: Path | None = None,
    report_to: Sequence[str] = (),
    strategy: str = "none",
    steps_after: int = 0,
    identity: Mapping[str, Any] | None = None,
    validation: ValidationData | None = None,
) -> StageResult:
    """Train the parts that a stage names, and leave everything else as it is.

    Args:
        model: A `WorkflowModel`; trained in place.
        dataset: Indexed by what `sampler` yields; must give the same item each time, for exact resuming.
        collator: Makes the model's keyword arguments of a list of items.
        sampler: The order of each epoch, determined by its own seed and `set_epoch`.
        output_dir: Where `checkpoint-N` folders go.
        resume: "auto" continues from the newest complete checkpoint, if any; a path from that one; None starts
            from the beginning.
        callbacks: Further transformers callbacks; one with a `close()` is closed whatever happens.
        metrics_path: JSONL file of metrics, which several stages may share; `output_dir/metrics.jsonl` by default.
        report_to: "tensorboard", "wandb", both or neither.
        strategy: How several processes share the work, see `training.distributed`. After a stage with one of
            its `ENGINES` the model is of no more use: load the checkpoint into a new one.
        steps_after: Steps of later stages, for the time left that is shown.
        identity: What else a resumed run must share with the one that it continues, as JSON values: where the data
            come from, how they are encoded.
        validation: Rows for the stage's `validation`, which it needs.

    Raises:
        DataError: The dataset is empty.
        RecipeError: A setting is wrong, or the checkpoint is of a run with other settings.
        ModelError: The wrong parameters are trainable, or the checkpoint is of another model.
        RunError: The loss or a weight is not finite, a checkpoint could not be written, or the strategy is not
            what runs.
        RunStoppedError: The process was asked to stop by SIGTERM, and has saved.
    """
    check_strategy(strategy, num_processes())
    check_optimizers(strategy, settings)
    settings = _split(settings)
    if not len(sampler):  # type: ignore[arg-type]
        raise DataError(f"stage {settings.name!r} has no data: its mixture is empty")
    found = on_main_process(lambda: _find_checkpoint(output_dir, resume))
    model.set_trainable(settings.train)  # type: ignore[operator]
    _check_trainable(model, settings.train)
    require_reporters(report_to)
    identity = stage_identity(settings, sampler, identity)
    num_steps = settings.num_steps(len(sampler), num_processes())  # type: ignore[arg-type]
    first_step, changed = 0, None
    if found is not None:
        first_step, changed = _start_from(found, settings.name, identity, num_steps, resume)
    log = MetricsLog(metrics_path or output_dir / "metrics.jsonl", settings.name)
    kept_step = -1 if found is None else first_step  # a new start validates before its first step again
    on_main_process(lambda: log.drop_after(kept_step))
    reporter = reporter or Reporter()
    if found is not None and (first_step >= num_steps or has_stopped_early(found, settings)):
        if is_main_process() and resume == "auto":
            checkpoints.rotate(output_dir, settings.save_total_limit)  # a kill may have come between save and rotation
        result = _ended(settings, log, found, 0.0, reporter)
        checkpoints.load_weights(model, result.checkpoint)
        return result
    if found is not None and strategy in ENGINES:
        checkpoints.load_weights(model, found)  # an engine would take it too late

    if found is not None:
        _report_resumption(reporter, found, settings.name, changed, num_steps)
    throughput = Throughput(model, num_processes())
    described = settings.model_dump(mode="json")
    services = build_reporters(report_to, settings.name, output_dir, described, kept_step, log)
    watchers = [MetricsCallback(log, throughput), *services, *callbacks]

    def build_trainer(callbacks: Sequence[TrainerCallback]) -> WorkflowTrainer:
        build = WorkflowTrainer if num_processes() == 1 else partial(DistributedTrainer, strategy=strategy)
        arguments = build_arguments(settings, output_dir, len(sampler), strategy)  # type: ignore[arg-type]
        return build(
            model, arguments, settings, dataset=dataset, collator=collator, sampler=sampler, identity=identity,
            processor=processor, callbacks=callbacks, throughput=throughput,
        )  # fmt: skip

    started = time.perf_counter()
    with ExitStack() as stack:
        for callback in watchers:
            if hasattr(callback, "close"):
                stack.callback(callback.close)
        show = stack.enter_context(reporter.training(settings.name))
        progress = ProgressCallback(show, settings.name, throughput, steps_after=steps_after)
        watchers.append(progress)
        if settings.validation is not None:
            assert validation is not None, "the stage's validation needs data"
            watchers.append(ValidationCallback(validation, settings, strategy, reporter, progress))
        step = _run(build_trainer, model, settings, strategy, watchers, found, output_dir)
    last = output_dir / f"checkpoint-{step}"
    result = _ended(settings, log, last, time.perf_counter() - started, reporter)
    if result.checkpoint != last and strategy not in ENGINES:
        checkpoints.load_weights(model, result.checkpoint)
    return result


def _ended(settings: StageConfig, log: MetricsLog, last: Path, seconds: float, reporter: Reporter) -> StageResult:
    """The result of a stage that is at its last checkpoint."""
    final = final_checkpoint(last, settings)
    best = None if settings.validation is None else checkpoints.best_of(last)
    if best is not None:
        reporter.message(ending(settings, last, best, final))
    return StageResult(log.lines(), seconds, checkpoints.step_of(final), final)


def _split(settings: StageConfig) -> StageConfig:
    """The stage with its batch split; what it leaves open is one forward pass."""
    try:
        return settings.split(num_processes(), math.ceil((settings.train_batch_size or 1) / num_processes()))
    except ValueError as error:
        raise RecipeError(f"stage {settings.name!r}: {error}") from None


def _check_trainable(model: nn.Module, parts: Sequence[str]) -> None:
    """Make sure that exactly the parameters of `parts` are trainable.

    Raises:
        ModelError: A part is empty or unknown, or the trainable parameters are not those of the parts.
    """
    known = model.trainable_parts()  # type: ignore[operator]
    missing = [part for part in parts if not known.get(part)]
    if missing:
        have = ", ".join(part for part, names in known.items() if names) or "none"
        raise ModelError(f"the model has no parameters in the part {missing[0]!r}. Parts it has: {have}.")
    expected = {name for part in parts for name in known[part]}
    actual = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if expected != actual:
        idle, stray = sorted(expected - actual), sorted(actual - expected)
        raise ModelError(
            f"the wrong parameters are trainable: {len(idle)} of the parts {', '.join(parts)} are frozen"
            f" ({', '.join(idle[:3]) or 'none'}) and {len(stray)} others are not ({', '.join(stray[:3]) or 'none'})"
        )


def _find_checkpoint(output_dir: Path, resume: Path | str | None) -> Path | None:
    make_folder(output_dir)
    remove_leftovers(output_dir)
    found = checkpoints.find_resume_checkpoint(output_dir, resume)
    if found is not None:
        checkpoints.check_whole(found)
    return found


def _start_from(
    checkpoint: Path, stage: str, identity: Mapping[str, Any], num_steps: int, resume: Path | str | None
) -> tuple[int, str | None]:
    """After how many steps a stage resumes, and which of its settings differ from the checkpoint's."""
    changed = checkpoints.check_same_stage(checkpoint, identity, new_rates=resume != "auto")
    step = checkpoints.completed_steps(checkpoint)
    if step > num_steps:
        raise RecipeError(
            f"cannot resume {checkpoint}: it is past the {num_steps} steps that stage {stage!r} has now. Give it more "
            "(max_steps, num_train_epochs), or name an earlier one: --resume RUN/STAGE/checkpoint-N."
        )
    return step, changed


def _report_resumption(reporter: Reporter, checkpoint: Path, stage: str, changed: str | None, num_steps: int) -> None:
    reporter.message(f"resumes from {checkpoint}" + (f" with other settings: {changed}" if changed else ""))
    planned = checkpoints.planned_steps(checkpoint)
    if planned != num_steps:
        reporter.message(
            f"stage {stage!r} has {num_steps:,} steps now instead of {planned:,}: from here on learning rates are "
            "those of a stage of that length"
        )


def _run(
    build_trainer: Callable[[Sequence[TrainerCallback]], WorkflowTrainer],
    model: nn.Module,
    settings: StageConfig,
    strategy: str,
    watchers: Sequence[TrainerCallback],
    resumed_from: Path | None,
    output_dir: Path,
) -> int:
    """Train to the end, or until this or another process is asked to stop; gives the last step."""
    with ExitStack() as stack:
        stack.enter_context(prepared(model, settings))
        if strategy in ZERO_STAGES:
            stack.enter_context(deepspeed_state())
        shard(model, strategy)
        frozen = FrozenShards(model) if strategy in SHARDED else None
        request = stack.enter_context(StopRequest())
        stack.enter_context(machine_failures(f"stage {settings.name!r}", LOWER))
        trainer = build_trainer([*watchers, StopCallback(request)])
        for watcher in watchers:
            if isinstance(watcher, ValidationCallback):
                watcher.trainer = trainer
                stack.callback(delattr, watcher, "trainer")  # a cycle would keep its loader's processes to the end
        trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
        if frozen is not None:
            frozen.check(settings.name)
        step = int(trainer.state.global_step)
        trainer.finish()
        stopped = any_process(request.asked)
    if stopped:
        saved = output_dir / f"checkpoint-{step}"
        raise RunStoppedError(f"stage {settings.name!r} was asked to stop: saved {saved}; continue with --resume auto")
    return step
