import dataclasses
import json

import pytest

from adaptkit.training.settings import GroupSettings, OptimizerSettings, StageSettings

STAGE = StageSettings("align", ("projector",), per_device_train_batch_size=4, gradient_accumulation_steps=2)


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
    assert dataclasses.replace(STAGE, **changes).num_steps(num_samples, num_processes) == expected


def test_warmup_in_steps_overrides_the_ratio():
    assert STAGE.num_warmup_steps(1000) == 30
    assert dataclasses.replace(STAGE, warmup_steps=7).num_warmup_steps(1000) == 7


def test_what_is_fixed_on_resume_survives_json_and_ignores_the_length():
    stage = dataclasses.replace(STAGE, optimizer=OptimizerSettings(groups={"projector": GroupSettings("muon", 1e-3)}))
    fixed = stage.fixed_on_resume()
    assert json.loads(json.dumps(fixed)) == fixed
    assert dataclasses.replace(stage, max_steps=9, save_steps=1, logging_steps=3).fixed_on_resume() == fixed
    assert dataclasses.replace(stage, seed=1).fixed_on_resume() != fixed
