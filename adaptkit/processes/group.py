"""The processes of a run: which of them this is, and how they wait for each other and agree."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from adaptkit.errors import AdaptkitError, RecipeError, RunError

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: longer than one takes to write a large checkpoint."""

ZERO_STAGES = {"zero2": 2, "zero3": 3}
SHARDED = ("zero3", "fsdp")
"""Strategies under which no process holds the frozen weights in whole."""
ENGINES = ("zero2", "zero3", "fsdp")
"""Strategies that change the model they are given: what comes after a stage is built anew."""

_OTHERS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")

Value = TypeVar("Value")


class PeerError(RunError):
    """Another process of the run ended first; its own message says why."""


def num_processes() -> int:
    """How many processes this run has, as whoever launched it says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return process_index() == 0


def check_strategy(strategy: str, num_processes: int) -> None:
    """Make sure that a strategy and a number of processes fit, and that the packages are there.

    Raises:
        RecipeError: They do not; the message says what to do.
    """
    if strategy == "none" and num_processes > 1:
        raise RecipeError(
            f"accelerator.strategy is none, and this run has {num_processes} processes. Say how they share the work "
            "with accelerator.strategy=ddp (or zero2, zero3, fsdp), or start one process."
        )
    if strategy != "none" and num_processes == 1:
        raise RecipeError(
            f"accelerator.strategy: {strategy} spreads a run over several processes, and this is one. Start them with "
            "--num-processes N (one for each GPU), or run on one device with accelerator.strategy=none."
        )
    require_packages(strategy)
    for variable in _OTHERS:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise RecipeError(
                f"{variable} is set: accelerate's own configuration would spread the run, and the recipe does "
                f"(accelerator.strategy: {strategy}). Launch with a plain multi-GPU or multi-CPU configuration."
            )


def require_packages(strategy: str) -> None:
    """Make sure that the packages of a strategy are there.

    Raises:
        RecipeError: They are not.
    """
    if strategy in ZERO_STAGES and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(
            f"accelerator.strategy: {strategy} needs DeepSpeed. Install it with `pip install adaptkit[deepspeed]`, or "
            "take accelerator.strategy=fsdp, which needs nothing more."
        )


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes of the run, if there are any, and leave them afterwards.

    Raises:
        RecipeError: There are more processes than GPUs on this machine.
        PeerError: Another process ended.
    """
    import torch.distributed as dist

    if num_processes() == 1 or dist.is_initialized():
        yield
        return
    try:
        dist.init_process_group(_choose_device(), timeout=TIMEOUT)
        yield
    except RuntimeError as error:
        if not _lost_connection(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PeerError(f"process {process_index()} lost the others, of which one has ended ({reason})") from error
    dist.destroy_process_group()  # after an error the others may not take part, and the process ends anyway


def _choose_device() -> str:
    """Take this process's GPU, if there are any, and name the backends for tensors there and on the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus:
        raise RecipeError(f"{here} processes were started on a machine with {gpus} GPUs. Start one for each.")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cuda:nccl,cpu:gloo"


def _lost_connection(error: RuntimeError) -> bool:
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text


def any_process(flag: bool) -> bool:
    """Whether `flag` holds in any process; all must ask, and all get the same answer."""
    import torch
    import torch.distributed as dist

    if not _together():
        return flag
    answer = torch.tensor([int(flag)])  # on the CPU, so that no GPU has to wait
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer.item())


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    any_process(False)


def on_main_process(call: Callable[[], Value]) -> Value:
    """Let the main process do something, and give its result, or its error, to all."""
    import torch.distributed as dist

    if not _together():
        return call()
    answer: list[Any] = [None, None]
    if is_main_process():
        try:
            answer[0] = call()
        except AdaptkitError as error:
            answer[1] = error
        except BaseException as error:
            dist.broadcast_object_list([None, PeerError(f"the main process ended: {error}")])
            raise
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    value: Value = answer[0]
    return value


def main_process_first(call: Callable[[], Value]) -> Value:
    """Do something in every process, but first in the main one, which may leave files that the others find."""
    if not _together():
        return call()
    first: list[Value] = []
    on_main_process(lambda: first.append(call()))
    return first[0] if first else call()


def _together() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
