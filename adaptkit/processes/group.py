"""The processes of a run: the rank of this one, and how they wait for each other and agree."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from adaptkit.errors import AdaptkitError, RecipeError, RunError, install_command

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: longer than it takes to save a large checkpoint."""

ZERO_STAGES = {"zero2": 2, "zero3": 3}
SHARDED = ("zero3", "fsdp")
"""Strategies that shard the frozen weights."""
ENGINES = ("zero2", "zero3", "fsdp")
"""Strategies that change the model they are given: it is built anew after a stage."""

_OTHERS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")

Value = TypeVar("Value")


class PeerError(RunError):
    """Another process of the run ended first; its own message says why."""


def num_processes() -> int:
    """Number of processes of this run, from the launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_launched() -> bool:
    """Whether a launcher has started this process as one of a group: adaptkit's, torchrun, accelerate."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def process_index() -> int:
    """The rank of this process."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the process that prints and saves."""
    return process_index() == 0


def check_strategy(strategy: str, num_processes: int) -> None:
    """Check that a strategy fits the number of processes, and that its packages are installed.

    Raises:
        RecipeError: It does not, or they are not.
    """
    if strategy == "none" and num_processes > 1:
        raise RecipeError(
            f"accelerator.strategy is none, and this run has {num_processes} processes. Set "
            "accelerator.strategy=ddp (or zero2, zero3, fsdp), or start one process."
        )
    if strategy != "none" and num_processes == 1:
        raise RecipeError(
            f"accelerator.strategy: {strategy} needs several processes, and this run has one. Start more with "
            "--num-processes N (one for each GPU), or set accelerator.strategy=none."
        )
    require_packages(strategy)
    for variable in _OTHERS:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise RecipeError(
                f"{variable} is set: the strategy of accelerate's configuration conflicts with that of the recipe "
                f"(accelerator.strategy: {strategy}). Launch with a plain multi-GPU or multi-CPU configuration."
            )


def require_packages(strategy: str) -> None:
    """Check that the packages of a strategy are installed.

    Raises:
        RecipeError: They are not.
    """
    if strategy in ZERO_STAGES and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(
            f"accelerator.strategy: {strategy} needs DeepSpeed. Install it with `{install_command('deepspeed')}`, or "
            "use accelerator.strategy=fsdp, which needs no further package."
        )


@contextmanager
def process_group() -> Iterator[None]:
    """Initialize the process group if the run has several processes, and destroy it afterwards.

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
        raise PeerError(
            f"process {process_index()} lost its connection to another process, which has ended ({reason})"
        ) from error
    dist.destroy_process_group()  # not after an error: others may hang, and the process ends anyway


def _choose_device() -> str:
    """Select this process's GPU, if there are any, and name the backends for GPU and CPU tensors."""
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus:
        raise RecipeError(
            f"{here} processes were started on a machine with {gpus} GPUs. Start one process for each GPU."
        )
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cuda:nccl,cpu:gloo"


def _lost_connection(error: RuntimeError) -> bool:
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process; a collective operation."""
    import torch
    import torch.distributed as dist

    if not _together():
        return flag
    answer = torch.tensor([int(flag)])  # on the CPU: reading a CUDA tensor would synchronize
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer.item())


def wait_for_all() -> None:
    """Wait until all processes have called this."""
    any_process(False)


def on_main_process(call: Callable[[], Value]) -> Value:
    """Call a function in the main process, and broadcast its result or error."""
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


def from_all_processes(value: Value) -> list[Value]:
    """The values that all processes have given, by rank; a collective operation."""
    import torch.distributed as dist

    if not _together():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def main_process_first(call: Callable[[], Value]) -> Value:
    """Call a function in the main process first, which may leave files for the others, and then in all others."""
    if not _together():
        return call()
    first: list[Value] = []
    on_main_process(lambda: first.append(call()))
    return first[0] if first else call()


def _together() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
