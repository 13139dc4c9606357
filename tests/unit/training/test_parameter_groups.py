import copy

import pytest
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from adaptkit import adapt
from adaptkit.errors import ModelError
from adaptkit.stage import OptimizerGroup
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.metrics import learning_rates
from adaptkit.training.optimizers import Muon
from adaptkit.training.parameter_groups import CombinedOptimizer, build_optimizer
from tests.stages import optimizer_config
from tests.unit.training.fake_workflow import FakeData, FakeWorkflow, WideWorkflow, collate

EVERYTHING = ("projector", "insertion", "ends")
MIXED = optimizer_config(
    learning_rate=1e-3, weight_decay=0.1, groups={"insertion": OptimizerGroup(name="muon", learning_rate=6e-3)}
)


def described(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["part"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def step(model, optimizer):
    model.eval()  # without dropout
    items = [FakeData()[index] for index in range(8)]
    model.zero_grad()
    model(**collate(items)).loss.backward()
    optimizer.step()


def test_one_optimizer_by_part_spares_norms_and_biases_from_decay(model):
    optimizer = build_optimizer(model, ("projector", "insertion"), optimizer_config(weight_decay=0.1))
    assert type(optimizer) is AdamW
    assert described(model, optimizer) == {
        "projector.weight": ("projector", 2e-5, 0.1),
        "projector.bias": ("projector", 2e-5, 0.0),
        "inserted.weight": ("insertion", 2e-5, 0.1),
        "inserted.bias": ("insertion", 2e-5, 0.0),
        "inserted_norm.weight": ("insertion", 2e-5, 0.0),
        "inserted_norm.bias": ("insertion", 2e-5, 0.0),
    }


def test_rates_of_an_encoder_decay_from_block_to_block():
    model = adapt(
        tiny_decoder("llama"),
        {"image": {"encoder": tiny_clip_vision(), "train_encoder": True, "encoder_options": {"feature_layer": -1}}},
    )
    group = OptimizerGroup(learning_rate=1e-3, layer_decay=0.5)
    optimizer = build_optimizer(model, ("projector", "encoder"), optimizer_config(groups={"encoder": group}))
    of = {name: rate for name, (_, rate, _) in described(model, optimizer).items()}
    place = "encoders.image.model.encoder.layers.{}.mlp.fc1.weight"
    assert (of[place.format(1)], of[place.format(0)]) == (1e-3, 5e-4)
    assert of["encoders.image.model.embeddings.class_embedding"] == 2.5e-4
    assert of["projectors.image.0.weight"] == 2e-5
    assert learning_rates(optimizer) == {"projector": 2e-5, "encoder": 1e-3}


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw(model):
    optimizer = build_optimizer(model, EVERYTHING, MIXED)
    assert isinstance(optimizer, CombinedOptimizer)
    assert [type(member) for member in optimizer.members] == [AdamW, Muon]
    of = described(model, optimizer)
    assert of["inserted.weight"] == ("insertion", 6e-3, 0.1)
    assert of["inserted_norm.weight"] == ("insertion", 1e-3, 0.0)
    assert of["lm_head.weight"] == ("ends", 1e-3, 0.1)
    assert set(of) == set(model.trainable_state_dict())
    assert learning_rates(optimizer) == {"projector": 1e-3, "insertion": 6e-3, "ends": 1e-3}


def test_a_muon_stage_gives_embeddings_and_heads_a_quarter_unless_told(model):
    of = described(model, build_optimizer(model, EVERYTHING, optimizer_config(name="muon", learning_rate=4e-3)))
    assert (of["projector.weight"][1], of["lm_head.weight"][1]) == (4e-3, 1e-3)
    told = optimizer_config(name="muon", learning_rate=4e-3, adamw_learning_rate=5e-4)
    assert described(model, build_optimizer(model, EVERYTHING, told))["lm_head.weight"][1] == 5e-4


def test_combined_equals_separate_optimizers_under_a_schedule():
    together, apart = FakeWorkflow(), FakeWorkflow()
    combined = build_optimizer(together, EVERYTHING, MIXED)
    alone = [build_optimizer(apart, ("insertion",), MIXED)]
    alone.append(build_optimizer(apart, ("projector", "ends"), optimizer_config(learning_rate=1e-3, weight_decay=0.1)))
    schedules = [LambdaLR(optimizer, lambda step: 1 / (1 + step)) for optimizer in (combined, *alone)]
    for _ in range(3):
        step(together, combined)
        step(apart, alone[0])
        alone[1].step()
        for schedule in schedules:
            schedule.step()
    for (name, left), right in zip(together.named_parameters(), apart.parameters()):
        assert torch.equal(left, right), name


def test_the_state_of_a_combined_optimizer_round_trips():
    straight, resumed = FakeWorkflow(), FakeWorkflow()
    first = build_optimizer(straight, EVERYTHING, MIXED)
    for _ in range(2):
        step(straight, first)
    resumed.load_state_dict(straight.state_dict())
    second = build_optimizer(resumed, EVERYTHING, MIXED)
    state = first.state_dict()
    assert set(state) == {"state", "param_groups"}
    second.load_state_dict(copy.deepcopy(state))
    for _ in range(2):
        step(straight, first)
        step(resumed, second)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters()))


def test_no_part_is_an_error(model):
    with pytest.raises(ModelError, match="nothing to train"):
        build_optimizer(model, (), optimizer_config())


def test_the_state_of_an_8_bit_optimizer_round_trips_alone_and_beside_muon():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    alone = optimizer_config(name="adamw_8bit", learning_rate=1e-2)
    mixed = optimizer_config(
        name="adamw_8bit", learning_rate=1e-2, groups={"insertion": OptimizerGroup(name="muon", learning_rate=6e-3)}
    )
    for settings in (alone, mixed):
        straight, resumed = WideWorkflow(), WideWorkflow()
        first = build_optimizer(straight, EVERYTHING, settings)
        for _ in range(2):
            step(straight, first)
        resumed.load_state_dict(straight.state_dict())
        second = build_optimizer(resumed, EVERYTHING, settings)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for _ in range(2):
            step(straight, first)
            step(resumed, second)
        assert second.state[resumed.embed_tokens.weight]["state1"].dtype == torch.uint8
        for (name, left), right in zip(straight.named_parameters(), resumed.parameters()):
            assert torch.equal(left, right), name


def test_the_8_bit_optimizer_names_its_extra_where_it_is_missing(model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"adamw_8bit .*inner-adaptkit\[bitsandbytes\]"):
        build_optimizer(model, ("projector",), optimizer_config(name="adamw_8bit"))
