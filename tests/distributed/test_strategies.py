"""Two processes and one train alike, whatever is sharded.

Some batches of a process have no picture while the other's have: that nobody waits for the other is part of it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import BatchSampler

import adaptkit
from adaptkit.errors import ModelError, RecipeError, RunError
from adaptkit.processes.group import check_strategy
from adaptkit.stage import OptimizerConfig, OptimizerGroup
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.distributed.strategies import assert_strategy, check_optimizers, shard
from adaptkit.training.distributed.trainer import BatchShards, Repeated
from tests.distributed.strategy_runs import DATA_DEPENDENT, GLOBAL_BATCH, NUM_PROCESSES, Order
from tests.stages import optimizer_config, stage_config

pytestmark = pytest.mark.timeout(900)  # all runs happen in the first test: a minute or two, unless the machine is busy

deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
every_strategy = pytest.mark.parametrize(
    "strategy", ["ddp", "fsdp", pytest.param("zero2", marks=deepspeed), pytest.param("zero3", marks=deepspeed)]
)
sharded = pytest.mark.parametrize("strategy", ["fsdp", pytest.param("zero3", marks=deepspeed)])


@every_strategy
def test_the_loss_curve_is_that_of_one_process_with_the_same_batch(forks: dict[str, Any], strategy: str) -> None:
    """Also over a checkpoint in the middle, an epoch's last and smaller batch, and gradients that are cut."""
    alone, told = forks["strategies"]["alone"], forks["strategies"][strategy]
    assert len(told["losses"]) == 5
    # Sums in another order: float32 rounding, which AdamW's division by small gradients makes larger
    assert told["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert told["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert min(alone["norms"]) > 0.5  # else nothing was cut


@every_strategy
def test_validation_is_that_of_one_process(forks: dict[str, Any], strategy: str) -> None:
    alone, told = forks["strategies"]["alone"]["validations"], forks["strategies"][strategy]["validations"]
    assert [line["step"] for line in told] == [0, 2, 4, 5]
    for ours, theirs in zip(alone, told, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    assert {"validation/modality/image/loss", "validation/modality/text/loss"} < told[0].keys()


@sharded
def test_no_process_waits_in_layers_with_data_dependent_branches(forks: dict[str, Any], strategy: str) -> None:
    alone, told = (forks["strategies"][name][DATA_DEPENDENT] for name in ("alone", strategy))
    assert told["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for ours, theirs in zip(alone["validations"], told["validations"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


def test_fsdp_refuses_layers_that_pass_on_more_than_their_outputs() -> None:
    model = adaptkit.adapt(
        tiny_decoder("llama"),
        {"image": {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": 9}},
        {"policy": "mma"},
    )
    with pytest.raises(ModelError, match=r"fsdp .*\(Mma\).* zero3"):
        shard(model, "fsdp")


@every_strategy
def test_a_checkpoint_of_two_processes_resumes_in_one(forks: dict[str, Any], strategy: str) -> None:
    alone, again = forks["strategies"]["alone"], forks["strategies"][strategy]["again"]
    assert again["losses"] == pytest.approx(alone["losses"][2:], rel=1e-5)
    ours, theirs = load_file(alone["weights"]), load_file(again["weights"])
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@sharded
def test_frozen_weights_and_optimizer_state_are_sharded(forks: dict[str, Any], strategy: str) -> None:
    alone, told = forks["strategies"]["alone"]["census"], forks["strategies"][strategy]["census"]
    assert told["frozen"] == pytest.approx(alone["frozen"] / NUM_PROCESSES, rel=0.01)
    assert told["state"] == pytest.approx(alone["state"] / NUM_PROCESSES, rel=0.01)
    # The base keeps no copy of what the workflow shares with it; its own ends are no part of the workflow
    assert told["base"] == alone["base"] - (alone["shared"] - told["shared"])
    assert told["shared"] == pytest.approx(alone["shared"] / NUM_PROCESSES, rel=0.01)


@deepspeed
def test_zero2_shards_the_optimizer_state_and_keeps_the_base(forks: dict[str, Any]) -> None:
    alone, told = forks["strategies"]["alone"]["census"], forks["strategies"]["zero2"]["census"]
    assert told["frozen"] == alone["frozen"]
    assert told["state"] == pytest.approx(alone["state"] / NUM_PROCESSES, rel=0.01)


@every_strategy
def test_frozen_parameters_have_no_optimizer_state_and_no_gradient(forks: dict[str, Any], strategy: str) -> None:
    alone, told = forks["strategies"]["alone"]["census"], forks["strategies"][strategy]["census"]
    assert told["frozen_gradients"] == 0
    assert alone["state"] == 2 * alone["trained"]
    assert told["state"] <= alone["state"]


def test_some_processes_had_no_picture_while_others_had() -> None:
    batches = BatchSampler(Order(), GLOBAL_BATCH // 2, drop_last=False)
    shards = zip(*(BatchShards(batches, rank, NUM_PROCESSES) for rank in range(NUM_PROCESSES)), strict=True)
    whole = [step for step in shards if not any(isinstance(index, Repeated) for share in step for index in share)]
    has_picture = [tuple(any(index % 3 == 0 for index in share) for share in step) for step in whole]
    assert {(True, False), (False, True)} & set(has_picture)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 5])
def test_shares_of_a_batch_are_the_batch(num_shards: int) -> None:
    batches = list(BatchSampler(range(22), 6, drop_last=False))
    sampler = BatchSampler(range(22), 6, drop_last=False)  # type: ignore[arg-type]
    shards = [list(BatchShards(sampler, rank, num_shards)) for rank in range(num_shards)]
    for number, batch in enumerate(batches):
        parts = [share[number] for share in shards]
        assert all(parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [index for part in parts for index in part if not isinstance(index, Repeated)] == batch


def test_a_whole_recipe_runs_in_two_processes(forks: dict[str, Any]) -> None:
    whole, told = forks["recipes"]["whole"], forks["recipes"]["several"]["fsdp"]
    assert told["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    assert told["num_processes"] == 2
    assert whole["num_processes"] is None
    per_process = {name for name in told["files"] if "rng_state" in name}
    assert set(told["files"]) - per_process == {name for name in whole["files"] if "rng_state" not in name}


@pytest.mark.parametrize("strategy", ["none", "ddp", "zero2", "zero3", "fsdp"])
def test_another_strategy_than_the_requested_one_stops_the_run(strategy: str) -> None:
    model = nn.Linear(2, 2)
    wrapped = nn.Sequential(model) if strategy in ("none", "fsdp") else model
    with pytest.raises(RunError, match=rf"strategy: {strategy} was requested, and the model .*please report"):
        assert_strategy(strategy, model, wrapped)


def test_fsdp_that_did_not_shard_weights_stops_the_run() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RunError, match=r"2 parameters are not sharded \(weight, bias\)"):
        assert_strategy("fsdp", model, model)


def test_strategy_and_number_of_processes_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r" none, .* 2.*accelerator\.strategy=ddp"):
        check_strategy("none", 2)
    with pytest.raises(RecipeError, match=r"fsdp .*--num-processes N.*strategy=none"):
        check_strategy("fsdp", 1)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match=r"ACCELERATE_USE_FSDP is set.*plain multi-GPU"):
        check_strategy("ddp", 2)


def test_a_missing_deepspeed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"zero3 .*inner-adaptkit\[deepspeed\].*strategy=fsdp"):
        check_strategy("zero3", 2)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
@pytest.mark.parametrize(
    "optimizer", [optimizer_config(name="muon"), optimizer_config(groups={"insertion": OptimizerGroup(name="muon")})]
)
def test_muon_is_refused_where_matrices_are_sharded(strategy: str, optimizer: OptimizerConfig) -> None:
    settings = stage_config(name="align", train=("insertion",), optimizer=optimizer)
    with pytest.raises(RecipeError, match=rf"'align'.*muon does not work with accelerator.strategy={strategy}"):
        check_optimizers(strategy, settings)
    check_optimizers("ddp", settings)
