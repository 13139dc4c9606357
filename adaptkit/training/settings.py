"""The knobs of one training stage, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from adaptkit.seeds import check_seed


@dataclass(frozen=True)
class GroupSettings:
    """What one part overrides of the stage's optimiser; None keeps the stage's value."""

    name: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters are updated.

    Attributes:
        name: "adamw", "adamw_8bit" (averages kept in 8 bits, by bitsandbytes) or "muon". Muon updates matrices;
            embeddings, heads, norms and biases still go to AdamW.
        learning_rate: Peak learning rate of every part that `groups` does not list.
        weight_decay: Decoupled; spares vectors, that is norms and biases.
        betas: AdamW's running averages.
        eps: AdamW's guard against division by zero.
        adamw_learning_rate: What AdamW takes for those parameters of a Muon part that are not Muon's. None: the
            stage's `learning_rate` where the stage's optimiser is AdamW, else a quarter of the part's.
        groups: Overrides by part: `{"insertion": GroupSettings(name="muon", learning_rate=6e-3)}`.
    """

    name: str = "adamw"
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    adamw_learning_rate: float | None = None
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class StageSettings:
    """One training stage.

    Attributes:
        name: The stage's name, for messages and metrics.
        train: The parts that learn, in the words of `model.trainable_parts()`.
        optimizer: See `OptimizerSettings`.
        lr_scheduler_type: A transformers schedule: "cosine", "linear", "constant_with_warmup", …
        lr_scheduler_kwargs: What the schedule takes beside steps.
        warmup_ratio: Share of all steps over which learning rates rise from zero.
        warmup_steps: The same in steps; where positive it overrides `warmup_ratio`.
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them.
        loss_spike: The stage stops where the loss is so many times its median of the last steps and above where it
            began; infinity for no limit.
        num_train_epochs: Passes over the data; may be a fraction.
        max_steps: Optimiser steps; where positive it overrides `num_train_epochs`.
        per_device_train_batch_size: Samples per device and forward pass; with `packing` it says only how long a row
            is.
        gradient_accumulation_steps: Forward passes per optimiser step.
        bf16: Compute in bfloat16 (autocast); trainable tensors stay as they are.
        gradient_checkpointing: Recompute activations in the backward pass to save memory: of whole layers, or, with
            "selective", of all but matrix products and attention, which costs little time and saves less.
        packing: Fill rows with several conversations, without padding; a forward pass takes one row.
        loss: "plain", "chunked", "liger" or "auto"; see `prepared_for_training` of the model.
        torch_compile: Compile each decoder layer, which takes minutes before it pays.
        save_steps: Steps between checkpoints; 0 saves at the end only.
        save_total_limit: Checkpoints kept; None keeps all.
        logging_steps: Steps between lines of metrics.
        eval_steps: Steps between evaluations; 0 evaluates at the end only.
        dataloader_num_workers: Processes that prepare batches; 0 does it in the training process.
        seed: Of dropout and whatever else draws at random while training.
        use_cpu: Stay on the CPU although an accelerator is there.
    """

    name: str
    train: tuple[str, ...]
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lr_scheduler_type: str = "cosine"
    lr_scheduler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    warmup_ratio: float = 0.03
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    loss_spike: float = 5.0
    num_train_epochs: float = 1.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    bf16: bool = False
    gradient_checkpointing: bool | Literal["selective"] = False
    packing: bool = False
    loss: Literal["auto", "plain", "chunked", "liger"] = "auto"
    torch_compile: bool = False
    save_steps: int = 500
    save_total_limit: int | None = 2
    logging_steps: int = 10
    eval_steps: int = 0
    dataloader_num_workers: int = 0
    seed: int = 0
    use_cpu: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed, f"stage {self.name!r}: seed")

    @property
    def batch_size(self) -> int:
        """What the sampler gives that makes a batch of one device: samples, or one pack of them."""
        return 1 if self.packing else self.per_device_train_batch_size

    def num_steps(self, num_samples: int, num_processes: int = 1) -> int:
        """Optimiser steps of the stage, where the sampler gives `num_samples` samples or packs an epoch."""
        if self.max_steps > 0:
            return self.max_steps
        num_batches = math.ceil(num_samples / (self.batch_size * num_processes))
        return math.ceil(self.num_train_epochs * math.ceil(num_batches / self.gradient_accumulation_steps))

    def num_warmup_steps(self, num_steps: int) -> int:
        """Steps over which learning rates rise, of `num_steps` in all; as a share it leaves one step behind them."""
        if self.warmup_steps > 0:
            return self.warmup_steps
        return min(math.ceil(self.warmup_ratio * num_steps), max(num_steps - 1, 0))

    def fixed_on_resume(self) -> dict[str, Any]:
        """What a resumed run must share with the one it continues to end in the same weights, as JSON values.

        Left out are the stage's length, which may be extended, and what changes no weight.
        """
        free = {
            "num_train_epochs", "max_steps", "save_steps", "save_total_limit", "logging_steps", "eval_steps",
            "dataloader_num_workers", "gradient_checkpointing", "use_cpu", "loss_spike",
        }  # fmt: skip
        values = {key: value for key, value in asdict(self).items() if key not in free}
        values["train"] = sorted(self.train)
        values["optimizer"]["betas"] = list(self.optimizer.betas)
        return values
