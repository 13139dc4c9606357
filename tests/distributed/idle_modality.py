"""One training step in each of two processes, of which the second has nothing to see. Run by `test_idle_modality.py`.

Prints the loss of every process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder

PLACEHOLDER = 9


def build() -> Any:
    torch.manual_seed(0)
    return adaptkit.adapt(
        tiny_decoder("llama"),
        {"image": {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": PLACEHOLDER}},
        {"policy": "inner_adapter", "placement": {"every": 1}},
        replace_ends=True,
    )


def batch(model: Any, with_picture: bool) -> dict[str, Any]:
    encoder = model.encoders["image"]
    inputs = torch.randn(1, *encoder.example_inputs().shape[1:], generator=torch.Generator().manual_seed(1))
    positions = encoder.build_preprocessor().fixed_positions if with_picture else 0
    ids = torch.tensor([[1, *[PLACEHOLDER] * positions, 2, 3, 4]])
    return {"input_ids": ids, "labels": ids, **({"features": {"image": inputs}} if with_picture else {})}


def fsdp(model: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    for layer in model.language_model.model.layers:
        fully_shard(layer)
    for module in (*model.encoders.values(), *model.projectors.values()):
        fully_shard(module)
    return fully_shard(model)


def zero3(model: Any) -> Any:
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "zero_force_ds_cpu_optimizer": False,
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return deepspeed.initialize(model=model, model_parameters=trained, config=config)[0]


def main(strategy: str) -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    dist.init_process_group("gloo")
    model = build()
    inputs = batch(model, with_picture=dist.get_rank() == 0)
    wrapped = {"ddp": torch.nn.parallel.DistributedDataParallel, "fsdp": fsdp, "zero3": zero3}[strategy](model)
    wrapped.train()
    loss = wrapped(**inputs).loss
    wrapped.backward(loss) if strategy == "zero3" else loss.backward()
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, loss.item())
    if dist.get_rank() == 0:
        print(json.dumps({"losses": gathered}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
