import json

import pytest

from adaptkit.stage import OptimizerGroup
from tests.stages import optimizer_config, stage_config

STAGE = stage_config(train=("projector",), per_device_train_batch_size=4, gradient_accumulation_steps=2)


@pytest.mark.parametrize(
    ("changes", "num_samples", "num_processes", "expected"),
    [
        ({}, 24, 1, 3),
        ({}, 25, 1, 4),  # seven batches make four steps
        ({}, 24, 2, 2),
        ({"num_train_epochs": 2.5}, 24, 1, 8),
        ({"num_train_epochs": 2.5, "max_steps": 5}, 24, 1, 5),
    ],
)
def test_number_of_steps(changes, num_samples, num_processes, expected):
    assert STAGE.model_copy(update=changes).num_steps(num_samples, num_processes) == expected


def test_warmup_in_steps_overrides_the_ratio():
    assert STAGE.num_warmup_steps(1000) == 0
    assert STAGE.model_copy(update={"warmup_ratio": 0.03}).num_warmup_steps(1000) == 30
    assert STAGE.model_copy(update={"warmup_steps": 7, "warmup_ratio": 0.03}).num_warmup_steps(1000) == 7


def test_what_is_fixed_on_resume_survives_json_and_ignores_the_length():
    stage = stage_config(optimizer=optimizer_config(groups={"projector": OptimizerGroup(name="muon")}))
    fixed = stage.fixed_on_resume()
    assert json.loads(json.dumps(fixed)) == fixed
    length = {"max_steps": 9, "save_steps": 1, "logging_steps": 3}
    assert stage.model_copy(update=length).fixed_on_resume() == fixed
    assert stage.model_copy(update={"seed": 1}).fixed_on_resume() != fixed


def test_groups_of_parts_that_a_stage_does_not_train_change_nothing():
    groups = {"insertion": OptimizerGroup(name="muon"), "projector": OptimizerGroup(learning_rate=1e-3)}
    stage = stage_config(train=["projector"], optimizer=optimizer_config(groups=groups))
    assert stage.optimizer_names() == {"adamw"}
    assert list(stage.fixed_on_resume()["optimizer"]["groups"]) == ["projector"]


def test_what_changes_no_weight_is_named():
    """A new setting must be put with one of them, lest a resumed run take another one unseen."""
    elsewhere = {"workflow", "start_from", "data", "max_length", "group_by_length"}  # compared with the recipe
    free = {"num_train_epochs", "max_steps", "save_steps", "save_total_limit", "logging_steps", "loss_spike"}
    free |= {"dataloader_num_workers", "gradient_checkpointing", "validation"}
    free |= {"train_batch_size"}  # compared by the samples of a step, however a recipe gives them
    fixed = STAGE.fixed_on_resume().keys()
    assert fixed | free | elsewhere == STAGE.model_dump().keys()
