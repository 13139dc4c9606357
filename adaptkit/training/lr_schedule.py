"""Learning-rate schedules: a stage's is transformers' own, kept to its settings when a run resumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from adaptkit.stage import StageConfig


def schedule_arguments(settings: StageConfig, num_steps: int) -> dict[str, Any]:
    """The fields of `TrainingArguments` from which transformers builds a stage's schedule."""
    return {
        "learning_rate": settings.optimizer.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.num_warmup_steps(num_steps),
    }


@contextmanager
def settings_kept(scheduler: Any) -> Iterator[None]:
    """Load a checkpoint's optimizer and scheduler inside; only averages and the step are taken from it.

    The rates and the schedule in a checkpoint are those of its own stage, whose length or rates may have been others.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)
    wanted = [{key: value for key, value in g.items() if key != "params"} for g in schedule.optimizer.param_groups]
    base_rates = list(schedule.base_lrs)
    yield
    schedule.base_lrs = base_rates
    factors = [function(schedule.last_epoch) for function in schedule.lr_lambdas]
    groups = schedule.optimizer.param_groups
    for group, values, rate, factor in zip(groups, wanted, base_rates, factors, strict=True):
        group.update({**values, "initial_lr": rate, "lr": rate * factor})
    schedule._last_lr = [group["lr"] for group in groups]


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, num_steps: int) -> LambdaLR:
    """Warm up linearly, then follow half a cosine down to zero; for encoders."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        share = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return LambdaLR(optimizer, factor)
