"""A stage whose optimiser keeps its averages in 8 bits."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

from adaptkit.stage import OptimizerGroup
from adaptkit.training.checkpoints import find_newest
from adaptkit.training.stage import train_stage
from tests.stages import optimizer_config, stage_config
from tests.unit.training.fake_workflow import FakeData, FakeSampler, WideWorkflow, collate

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


class StoppedError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("groups", [{}, {"insertion": OptimizerGroup(name="muon", learning_rate=6e-3)}])
def test_it_resumes_to_the_same_bits(tmp_path, groups) -> None:
    settings = stage_config(
        name="align",
        train=("projector", "insertion", "ends"),
        optimizer=optimizer_config(name="adamw_8bit", learning_rate=1e-2, groups=groups),
        per_device_train_batch_size=4,
        max_steps=4,
        save_steps=2,
    )

    def train(model, folder, **options):
        data = FakeData()
        return train_stage(
            model, data, collate, settings, sampler=FakeSampler(len(data)), output_dir=folder, **options
        )  # fmt: skip

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise StoppedError

    straight, resumed = WideWorkflow(), WideWorkflow()
    train(straight, tmp_path / "straight")
    killed = WideWorkflow()
    with pytest.raises(StoppedError):
        train(killed, tmp_path / "stopped", callbacks=[Stop()])
    assert find_newest(tmp_path / "stopped").name == "checkpoint-2"
    train(resumed, tmp_path / "stopped", resume="auto")
    for (name, left), right in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right), name
