"""Gathered optimizer state and that of one process are the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from adaptkit.training.distributed.optimizer_state import ShardedOptimizer, gather_state, load_state


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def build(*, sharded: bool) -> tuple[nn.ModuleList, ShardedOptimizer]:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    for layer in layers if sharded else ():
        fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-2)
    return layers, ShardedOptimizer(optimizer, [list(layers.parameters())])


def step(layers: nn.ModuleList, sharded: ShardedOptimizer, num_layers: int) -> None:
    sum(layer(torch.ones(2, 4)).square().mean() for layer in list(layers)[:num_layers]).backward()
    sharded.optimizer.step()
    sharded.optimizer.zero_grad()


def test_a_parameter_without_gradients_so_far_resumes_as_in_a_run_without_interruption(group: None) -> None:
    alone, expected = build(sharded=False)
    layers, optimizer = build(sharded=True)
    step(alone, expected, 1)
    step(layers, optimizer, 1)
    saved = gather_state(optimizer, keep=True)
    torch.testing.assert_close(saved, expected.optimizer.state_dict(), rtol=0, atol=0)

    again, resumed = build(sharded=True)
    again.load_state_dict(layers.state_dict())
    load_state(resumed, saved)
    step(alone, expected, 2)
    step(again, resumed, 2)
    for ours, theirs in zip(again.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours.full_tensor(), theirs)  # type: ignore[attr-defined]
