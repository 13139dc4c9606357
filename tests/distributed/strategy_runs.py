"""Trains one small workflow by every strategy in two processes, and in one, and reports what each run did."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import adaptkit
from adaptkit.data.validation import ValidationData
from adaptkit.processes.group import is_main_process, process_group
from adaptkit.stage import StageConfig
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.distributed.strategies import local_shard
from adaptkit.training.metrics import read_metrics
from adaptkit.training.stage import train_stage
from tests.distributed.forking import forked
from tests.stages import optimizer_config, stage_config

PLACEHOLDER = 9
USUAL, DATA_DEPENDENT = "inner_adapter", "visual_expert"
"""Policies: one whose layers all processes go through alike, and one where the way depends on where media are."""

NUM_PROCESSES = 2
NUM_SAMPLES = 21  # the last batch of an epoch has fewer than there are processes
GLOBAL_BATCH = 8


def build(policy: str) -> Any:
    torch.manual_seed(0)
    inserted = policy == "inner_adapter"
    return adaptkit.adapt(
        tiny_decoder("llama"),
        {"image": {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": PLACEHOLDER}},
        {"policy": policy, **({"placement": {"every": 1}} if inserted else {})},
        replace_ends=inserted,
    )


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
        media = [] if picture is None else [("image", index)]
        return {"input_ids": ids, "labels": labels, "picture": picture, "media": media}


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    def padded(key: str, value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([item[key] for item in items], batch_first=True, padding_value=value)

    pictures = [item["picture"] for item in items if item["picture"] is not None]
    ids = padded("input_ids", 0)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(item["input_ids"]) for item in items]).unsqueeze(1)
    features = {"image": torch.stack(pictures)} if pictures else {}
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": padded("labels", -100), "features": features}


def held_out(encoder: Any) -> ValidationData:
    """Rows whose last batch has fewer than there are processes, and whose media are in some processes only."""
    return ValidationData(Conversations(encoder), ["some"] * NUM_SAMPLES, [3, 1, 2, 4, 5], collate)


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
        base = {id(p) for p in model.base.parameters()}
        self.seen = {
            "frozen": sum(local_shard(p).numel() for p in frozen),
            "shared": sum(local_shard(p).numel() for p in frozen if id(p) in base),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "base": sum({id(p): local_shard(p).numel() for p in model.base.parameters()}.values()),
            "state": sum(
                local_shard(value).numel()
                for tensors in optimizer.state.values()
                for value in tensors.values()
                if value.ndim
            ),
            "frozen_gradients": sum(p.grad is not None for p in frozen),
        }


def settings(**changes: Any) -> StageConfig:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    values: dict[str, Any] = {
        "name": "stage", "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 1, "optimizer": optimizer_config(learning_rate=5e-3, weight_decay=0.1),
        "max_grad_norm": 0.5, "per_device_train_batch_size": GLOBAL_BATCH // 2 // processes,
        "gradient_accumulation_steps": 2, "max_steps": 5, "save_steps": 2, "logging_steps": 1, "save_total_limit": 9,
        "validation": {"data": ["some"], "every": 2},
    }  # fmt: skip
    return stage_config(**{**values, **changes})


def train(folder: Path, strategy: str, policy: str, **changes: Any) -> dict[str, int]:
    model, census = build(policy), Census()
    parts = tuple(model.trainable_parts())
    train_stage(
        model, Conversations(model.encoders["image"]), collate, settings(train=parts, **changes), sampler=Order(),
        output_dir=folder, resume="auto", callbacks=[census], strategy=strategy,
        validation=held_out(model.encoders["image"]),
    )  # fmt: skip
    return census.seen


def several(folder: Path, strategy: str, policy: str = USUAL) -> None:
    """Two steps, and the rest after resuming; then the report of this process."""
    with process_group():
        train(folder, strategy, policy, max_steps=2)
        seen = train(folder, strategy, policy)
    if is_main_process():
        (folder / "census.json").write_text(json.dumps(seen))


def alone(folder: Path, policy: str = USUAL) -> None:
    """All steps in one process, from the beginning or from the checkpoint that several have left."""
    seen = train(folder, "none", policy)
    (folder / "census.json").write_text(json.dumps(seen))


def main(work: Path, strategies: list[str]) -> dict[str, Any]:
    """What each strategy did, beside one process alone; `again` went on alone from what two left half-way."""
    told: dict[str, Any] = {}
    assert forked(1, lambda: alone(work / "alone")) == [0]
    told["alone"] = _told(work / "alone")
    for strategy in strategies:
        codes = forked(NUM_PROCESSES, partial(several, work / strategy, strategy))
        assert codes == [0] * NUM_PROCESSES, f"{strategy} ended with {codes}"
        told[strategy] = _told(work / strategy)
        again = work / f"{strategy}-again"
        shutil.copytree(work / strategy / "checkpoint-2", again / "checkpoint-2")
        assert forked(1, partial(alone, again)) == [0]
        told[strategy]["again"] = _told(again)
    for strategy in sorted({"fsdp", "zero3"} & set(strategies)):
        folder = work / f"{strategy}-{DATA_DEPENDENT}"
        assert forked(NUM_PROCESSES, partial(several, folder, strategy, DATA_DEPENDENT)) == [0] * NUM_PROCESSES, folder
        told[strategy][DATA_DEPENDENT] = _told(folder)
    assert forked(1, partial(alone, work / DATA_DEPENDENT, DATA_DEPENDENT)) == [0]
    told["alone"][DATA_DEPENDENT] = _told(work / DATA_DEPENDENT)
    return told


def _told(folder: Path) -> dict[str, Any]:
    written = read_metrics(folder / "metrics.jsonl")
    lines = [line for line in written if "loss" in line]
    validations = [line for line in written if "validation/loss" in line]
    return {
        "validations": [
            {key: value for key, value in line.items() if key == "step" or key.endswith(("loss", "accuracy", "tokens"))}
            for line in validations
        ],
        "losses": [line["loss"] for line in lines],
        "norms": [line["grad_norm"] for line in lines],
        "weights": str(folder / "checkpoint-5" / "model.safetensors"),
        "census": json.loads((folder / "census.json").read_text()),
    }
