"""transformers' `Trainer`, thinly subclassed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from adaptkit.data.sampler import StepBatches
from adaptkit.errors import RunError
from adaptkit.files.loading import reading
from adaptkit.files.writing import staging_path
from adaptkit.processes.group import TIMEOUT, num_processes
from adaptkit.stage import StageConfig
from adaptkit.training import checkpoints
from adaptkit.training.distributed.strategies import deepspeed_config
from adaptkit.training.interruption import leave_signals_alone
from adaptkit.training.loss_watch import LossWatch
from adaptkit.training.lr_schedule import schedule_arguments, settings_kept
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.throughput import Throughput


class WorkflowTrainer(Trainer):  # type: ignore[misc]
    """Trains the trainable parts of a model, and saves only those.

    It differs from its parent in the optimiser (by part), the order of the data (the sampler's), the checkpoints
    (whole or absent, trainable tensors only), and in that it stops on a non-finite loss.

    Args:
        model: A `WorkflowModel` whose `set_trainable` was called.
        arguments: From `build_arguments`.
        dataset: Indexed by what `sampler` yields.
        collator: Makes the model's keyword arguments of a list of dataset items.
        sampler: The order of an epoch; its `set_epoch` is called where it has one.
        identity: What a run that resumes from a checkpoint must share with this one.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        settings: StageConfig,
        *,
        dataset: Dataset[Any],
        collator: Any,
        sampler: Sampler[Any],
        identity: Mapping[str, Any],
        processor: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
        throughput: Throughput,
    ) -> None:
        super().__init__(
            model=model, args=arguments, data_collator=collator, train_dataset=dataset, callbacks=list(callbacks)
        )
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_StepsOfTheSettings())
        self.model_accepts_loss_kwargs = True  # whatever its signature, a workflow scales by num_items_in_batch
        self._settings = settings
        self._sampler = sampler
        self._identity = identity
        self._processor = processor
        self._throughput = throughput
        decode = getattr(getattr(processor, "tokenizer", None), "decode", None)
        self._loss_watch = LossWatch(settings.name, Path(arguments.output_dir), settings.loss_spike, decode)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the sampler's order."""
        num_workers = self.args.dataloader_num_workers
        return self.build_loader(
            collate_fn=self.data_collator,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # else loaders with and without workers draw differently from the global one
            worker_init_fn=leave_signals_alone if num_workers > 0 else None,
        )

    def build_loader(self, **options: Any) -> DataLoader[Any]:
        """The loader of this process, given what all loaders have in common."""
        batches = StepBatches(self._sampler, self._settings.batch_size, self._settings.step_size())
        loader: DataLoader[Any] = DataLoader(self.train_dataset, batch_sampler=batches, **options)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """One optimizer over the trainable parameters, by part."""
        optimizer: Optimizer | None = getattr(self, "optimizer", None)
        if optimizer is None:
            optimizer = build_optimizer(self.model, self._settings.train, self._settings.optimizer)
            self.optimizer = optimizer
        return optimizer

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Autocast here, since accelerate would leave its own wrapped around the model's forward for good.

        Its cache of cast weights saves nothing where each is used once, and recomputed layers would find it otherwise.
        """
        return torch.autocast(
            self.args.device.type, dtype=torch.bfloat16, enabled=self._settings.bf16, cache_enabled=False
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the stock estimate walks all parameters at every step, and is wrong for frozen ones."""
        return 0

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward; stops before a step on a non-finite loss."""
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        self._throughput.add(inputs)
        self._loss_watch.add(self.state.global_step + 1, loss, inputs)
        if loss.device.type == "cpu" and self.accelerator.sync_gradients:
            self._check_loss()  # elsewhere reading it would stall the device: see `log` and `_save_checkpoint`
        return loss

    def _check_loss(self) -> None:
        rates = self.lr_scheduler.get_last_lr() if self.lr_scheduler else []
        self._loss_watch.check([float(rate) for rate in rates])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Check the loss, and log it; the summary after the last step is skipped, since `StageResult` holds it."""
        self._check_loss()
        if "loss" in logs or any(name.startswith("validation/") for name in logs):
            super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trainable tensors, the configuration and the processor."""
        if self.args.should_save:
            self.write_model(str(output_dir or self.args.output_dir))

    def write_model(self, folder: str, **options: Any) -> None:
        """Write them in this process; options are `save_pretrained`'s."""
        self.model.save_pretrained(folder, model_card=False, **options)
        if self._processor is not None:
            self._processor.save_pretrained(folder)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._check_loss()
        self._check_weights()
        output_dir = self.args.output_dir
        destination = Path(output_dir) / f"checkpoint-{self.state.global_step}"
        is_main = self.args.should_save
        staged = checkpoints.staged_checkpoint if is_main else _staged_by_main_process
        with staged(destination) as folder:
            self.accelerator.wait_for_everyone()
            self.args.output_dir = str(folder.parent)
            try:
                super()._save_checkpoint(*args, **kwargs)
            finally:
                self.args.output_dir = output_dir
            if is_main:
                checkpoints.write_stage(folder, self._identity)
            self.accelerator.wait_for_everyone()
            if is_main:
                checkpoints.write_files(folder)
        if is_main:
            checkpoints.rotate(Path(output_dir), self._settings.save_total_limit)

    def _check_weights(self) -> None:
        names = self.names_not_finite()
        if names:
            raise RunError(
                f"stage {self._settings.name!r}: {names[0]} holds non-finite values after step "
                f"{self.state.global_step}; nothing was saved. Lower the learning rate or max_grad_norm."
            )

    def finish(self) -> None:
        """Let go of what training needed."""

    def names_not_finite(self) -> list[str]:
        """Names of the model's own tensors with non-finite values."""
        return [name for name, tensor in self.model.trainable_state_dict().items() if not torch.isfinite(tensor).all()]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            self._load_optimizer_states(checkpoint)
            return
        with settings_kept(self.lr_scheduler):
            self._load_optimizer_states(checkpoint)

    def _load_optimizer_states(self, checkpoint: str | None) -> None:
        """What the parent loads from a checkpoint besides weights."""
        with reading(f"{checkpoint}: optimizer.pt or scheduler.pt", RunError, checkpoints.DAMAGED):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(f"{checkpoint}: rng_state.pth", RunError, checkpoints.DAMAGED):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))


class _StepsOfTheSettings(TrainerCallback):  # type: ignore[misc]
    """Logs and saves as often as the settings say: a resumed state says how often its own run did."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps


def _staged_by_main_process(destination: Path) -> AbstractContextManager[Path]:
    return nullcontext(staging_path(destination))


def stage_identity(
    settings: StageConfig, sampler: Sampler[Any], given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must be the same in a run and its continuation; `given` is what settings and data do not tell."""
    counts = {
        "num_samples": len(sampler),  # type: ignore[arg-type]
        "num_processes": num_processes(),
        "train_batch_size": settings.step_size(num_processes()),
        **({"row_length": settings.row_length} if settings.packing else {}),
    }
    return {**settings.fixed_on_resume(), **counts, **(given or {})}


def build_arguments(settings: StageConfig, output_dir: Path, num_samples: int, strategy: str = "none") -> Any:
    """Translate a stage's settings into transformers' `TrainingArguments`."""
    num_steps = settings.num_steps(num_samples, num_processes())
    for variable in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"):
        os.environ.pop(variable, None)  # accelerate's launcher sets them by its own configuration; the recipe decides
    use_cpu = num_processes() > 1 and not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.num_passes,
        **schedule_arguments(settings, num_steps),
        max_grad_norm=settings.max_grad_norm,
        max_steps=num_steps,
        save_strategy="steps",
        save_steps=settings.save_steps if settings.save_steps > 0 else num_steps,
        save_total_limit=None,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        use_cpu=use_cpu,
        ddp_backend="gloo" if use_cpu else None,
        ddp_timeout=int(TIMEOUT.total_seconds()),
        ddp_find_unused_parameters=True,  # a batch need not use every trained part
        deepspeed=deepspeed_config(strategy, settings),
    )
    if arguments.n_gpu > 1:  # one process among several GPUs: transformers would wrap the model in nn.DataParallel
        arguments._n_gpu = 1
    return arguments
