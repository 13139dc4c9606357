"""Trains one small workflow by every strategy in two processes, and in one, and reports what each run did.

Usage: `python -m tests.distributed.spread_runs WORKDIR STRATEGY…`. A process of its own, so that it can fork before
torch has started threads; what takes long, the imports, is done once.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from adaptkit.processes import is_main_process, process_group
from adaptkit.training.distributed import local_part
from adaptkit.training.metrics import read_metrics
from adaptkit.training.settings import OptimizerSettings, StageSettings
from adaptkit.training.stage import train_stage
from tests.distributed.idle_modality import PLACEHOLDER, build

NUM_PROCESSES = 2
NUM_SAMPLES = 22
GLOBAL_BATCH = 8


class Conversations(torch.utils.data.Dataset[Any]):
    """Random ids with random supervision; one in three has a picture, so that many batches of a process have none."""

    def __init__(self, encoder: Any) -> None:
        self.shape = encoder.example_inputs().shape[1:]
        self.positions = encoder.build_preprocessor().fixed_positions

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        ids = torch.randint(10, 60, (4 + index % 5,), generator=draw)
        picture = torch.randn(self.shape, generator=draw) if index % 3 == 0 else None
        ids = torch.cat([torch.full((self.positions,), PLACEHOLDER), ids]) if picture is not None else ids
        labels = ids.clone()
        labels[: len(ids) - 2 - index % 3] = -100
        return {"input_ids": ids, "labels": labels, "picture": picture}


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    def padded(key: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([item[key] for item in items], batch_first=True, padding_value=value)

    pictures = [item["picture"] for item in items if item["picture"] is not None]
    ids = padded("input_ids", 0)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(item["input_ids"]) for item in items]).unsqueeze(1)
    features = {"image": torch.stack(pictures)} if pictures else {}
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": padded("labels", -100), "features": features}


class Order(torch.utils.data.Sampler[int]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __iter__(self) -> Any:
        draw = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(NUM_SAMPLES, generator=draw).tolist())


class Census(TrainerCallback):  # type: ignore[misc]
    """Counts what this process holds after a step."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        optimizer = kwargs["optimizer"]
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        frozen = [p for p in model.parameters() if not p.requires_grad]
        self.seen = {
            "frozen": sum(local_part(p).numel() for p in frozen),
            "base": sum({id(p): local_part(p).numel() for p in model.base.parameters()}.values()),
            "state": sum(
                local_part(value).numel()
                for tensors in optimizer.state.values()
                for value in tensors.values()
                if value.ndim
            ),
            "frozen_gradients": sum(p.grad is not None for p in frozen),
        }


def settings(**changes: Any) -> StageSettings:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    values: dict[str, Any] = {
        "name": "stage", "train": ("projector", "insertion", "ends"), "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 1, "optimizer": OptimizerSettings(learning_rate=5e-3, weight_decay=0.1),
        "max_grad_norm": 0.5, "per_device_train_batch_size": GLOBAL_BATCH // 2 // processes,
        "gradient_accumulation_steps": 2, "max_steps": 5, "save_steps": 2, "logging_steps": 1, "save_total_limit": 9,
    }  # fmt: skip
    return StageSettings(**{**values, **changes})


def train(folder: Path, strategy: str, **changes: Any) -> dict[str, int]:
    model, census = build(), Census()
    train_stage(
        model, Conversations(model.encoders["image"]), collate, settings(**changes), sampler=Order(),
        output_dir=folder, resume="auto", callbacks=[census], strategy=strategy,
    )  # fmt: skip
    return census.seen


def spread(folder: Path, strategy: str) -> None:
    """Two steps, and the rest after resuming; then the report of this process."""
    with process_group():
        train(folder, strategy, max_steps=2)
        seen = train(folder, strategy)
    if is_main_process():
        (folder / "census.json").write_text(json.dumps(seen))


def alone(folder: Path, before: str = "") -> None:
    """All steps in one process, from the beginning or from the checkpoint that several have left."""
    seen = train(folder, "none")
    (folder / "census.json").write_text(json.dumps(seen))


def forked(num_processes: int, work: Callable[[], None], **variables: str) -> list[int]:
    """Run something in several processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pids = []
    for rank in range(num_processes):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "MASTER_PORT": port}
                if num_processes > 1:
                    os.environ.update({name: str(value) for name, value in names.items()})
                    os.environ.update({"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(num_processes), **variables})
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main(work: Path, strategies: list[str]) -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if {"zero2", "zero3"} & set(strategies):
        import deepspeed  # noqa: F401
    gc.freeze()
    report: dict[str, Any] = {}
    assert forked(1, lambda: alone(work / "alone")) == [0]
    report["alone"] = _told(work / "alone")
    for strategy in strategies:
        folder = work / strategy
        codes = forked(NUM_PROCESSES, lambda folder=folder, strategy=strategy: spread(folder, strategy))
        assert codes == [0] * NUM_PROCESSES, f"{strategy} ended with {codes}"
        report[strategy] = _told(folder)
    (work / "report.json").write_text(json.dumps(report))


def _told(folder: Path) -> dict[str, Any]:
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    return {
        "losses": [line["loss"] for line in lines],
        "norms": [line["grad_norm"] for line in lines],
        "census": json.loads((folder / "census.json").read_text()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
