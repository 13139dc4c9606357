"""The trainer for several processes: each reads, holds and saves its part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from transformers import set_seed
from transformers import trainer as transformers_trainer

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.data.sampler import StepBatches
from adaptkit.processes.group import ENGINES, SHARDED, ZERO_STAGES, any_process, num_processes, process_index
from adaptkit.training.distributed.optimizer_state import ShardedOptimizer, gather_state, load_state
from adaptkit.training.distributed.strategies import assert_strategy, full_tensor, gather_tensors, local_shard
from adaptkit.training.trainer import WorkflowTrainer


@dataclass(frozen=True)
class Repeated:
    """A sample of another process, which this one repeats without labels to take part in the step.

    Attributes:
        index: From the sampler.
    """

    index: Any


class WithRepeats(Dataset[Any]):
    """A dataset whose samples have no labels if their index is `Repeated`."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        """An item, or a pack of items."""
        if not isinstance(index, Repeated):
            return self._dataset[index]
        item = self._dataset[index.index]
        return [_unlabelled(one) for one in item] if isinstance(item, list) else _unlabelled(item)


def _unlabelled(item: Any) -> dict[str, Any]:
    return {**item, "labels": 0 * item["labels"] + IGNORE_INDEX}


class BatchShards(Sampler[list[Any]]):
    """This process's shard of each global batch, in order.

    An optimizer step therefore sees the same samples on any number of processes. The last batch of an epoch is split as
    evenly as possible; a process for which it has no sample gets a `Repeated` one. accelerate's `BatchSamplerShard`
    repeats samples with their labels, or drops them.
    """

    def __init__(self, batches: BatchSampler, rank: int, num_shards: int) -> None:
        self.sampler: Any = batches.sampler  # accelerate calls its `set_epoch`
        self._batches = batches
        self._rank = rank
        self._num_shards = num_shards

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the sampler."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            if len(batch) < self._num_shards:
                yield [batch[self._rank]] if self._rank < len(batch) else [Repeated(batch[0])]
                continue
            size, larger = divmod(len(batch), self._num_shards)
            start = self._rank * size + min(self._rank, larger)
            yield batch[start : start + size + (self._rank < larger)]


class DistributedTrainer(WorkflowTrainer):
    """`WorkflowTrainer` in one of several processes.

    Args:
        model: A `WorkflowModel`; already sharded if the strategy is one of `SHARDED`.
    """

    def __init__(self, model: nn.Module, *arguments: Any, strategy: str, **options: Any) -> None:
        self._strategy = strategy
        self._checked = False
        self._groups: list[list[nn.Parameter]] = []
        self._plain_optimizer: Optimizer | None = None
        super().__init__(model, *arguments, **options)
        if strategy == "fsdp":
            self._leave_to_fsdp()

    def _leave_to_fsdp(self) -> None:
        """Keep accelerate from wrapping a model that `fully_shard` has sharded."""
        clip = self.accelerator.clip_grad_norm_
        self.accelerator.prepare_model = lambda model, *args, **kwargs: model
        self.accelerator.clip_grad_norm_ = lambda *args, **kwargs: full_tensor(clip(*args, **kwargs))

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if self._strategy not in SHARDED:  # shards are on their device
            super()._move_model_to_device(model, device)

    # -- data --------------------------------------------------------------------------------------------------------

    def build_loader(self, **options: Any) -> DataLoader[Any]:
        """The loader of this process's shards of the batches."""
        number = num_processes()
        batches = StepBatches(self._sampler, self._settings.batch_size * number, self._settings.step_size(number))
        loader: DataLoader[Any] = DataLoader(
            WithRepeats(self.train_dataset),
            batch_sampler=BatchShards(batches, process_index(), number),
            **options,
        )
        prepared: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    # -- training ----------------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer, whose groups are recorded before an engine rearranges them."""
        optimizer = super().create_optimizer(model)
        if self._plain_optimizer is None:
            self._plain_optimizer = optimizer
            self._groups = [list(group["params"]) for group in optimizer.param_groups]
        return optimizer

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward; the first step checks the strategy."""
        if not self._checked:
            assert_strategy(self._strategy, self.model, model)
            self._checked = True
        return super().training_step(model, *args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; with DeepSpeed, too, a run resumes from adaptkit's checkpoints."""
        with _own_checkpoints():
            return super().train(*args, **kwargs)

    def finish(self) -> None:
        """Free the engine and its memory."""
        engine: Any = self.model_wrapped
        self.accelerator.free_memory()
        if self._strategy in ZERO_STAGES:
            engine.destroy()

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model's own tensors, gathered if they are sharded, the configuration and the processor."""
        if self._strategy not in SHARDED:
            super().save_model(output_dir, _internal_call)
            return
        tensors = gather_tensors(self.model, keep=self.args.should_save)
        if self.args.should_save:
            self.write_model(str(output_dir or self.args.output_dir), state_dict=tensors)

    def names_not_finite(self) -> list[str]:
        """Names of own tensors with non-finite values in this process; a placeholder for those in others."""
        own = self.model.trainable_state_dict()
        parameters = [(name, p) for name, p in self.model.named_parameters() if name in own]
        names = [name for name, parameter in parameters if not torch.isfinite(local_shard(parameter)).all()]
        anywhere = any_process(bool(names))
        return names or ["a tensor in another process"] * anywhere

    def _sharded_optimizer(self) -> ShardedOptimizer:
        assert self._plain_optimizer is not None
        engine = self.model_wrapped if self._strategy in ZERO_STAGES else None
        return ShardedOptimizer(self._plain_optimizer, self._groups, engine)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._strategy not in ENGINES:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gather_state(self._sharded_optimizer(), keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_states(self, checkpoint: str | None) -> None:
        if self._strategy not in ENGINES or checkpoint is None:
            super()._load_optimizer_states(checkpoint)
            return
        saved = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
        load_state(self._sharded_optimizer(), saved)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._strategy not in ENGINES:  # those load before sharding
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not (Path(checkpoint) / f"rng_state_{process_index()}.pth").is_file():
            # Saved by fewer processes: draw anew, but differently from the beginning of the stage
            set_seed((self.args.seed + 1_000_003 * self.state.global_step + process_index()) % 2**32)
            return
        super()._load_rng_state(checkpoint)


@contextmanager
def _own_checkpoints() -> Iterator[None]:
    """Keep transformers from loading a checkpoint in DeepSpeed's format, which holds all frozen weights."""
    module = cast(Any, transformers_trainer)
    before = module.deepspeed_load_checkpoint
    module.deepspeed_load_checkpoint = lambda *args, **kwargs: None
    try:
        yield
    finally:
        module.deepspeed_load_checkpoint = before
