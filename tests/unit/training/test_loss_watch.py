"""A loss that leaves the numbers or jumps stops the stage, and its batch is there to look at."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from adaptkit.errors import RunError
from adaptkit.training.loss_watch import LossWatch


def batch(ids=(1, 2), **features):
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([ids]), "features": features}


def watch_losses(losses, tmp_path, spike=5.0):
    watch = LossWatch("align", tmp_path, spike, lambda ids: " ".join(map(str, ids)))
    for step, loss in enumerate(losses, start=1):
        watch.add(step, torch.tensor(loss), batch((step, step)))
        watch.check([1e-3, 2e-5])


def test_a_learning_curve_passes(tmp_path):
    noise = torch.rand(200, generator=torch.Generator().manual_seed(0))
    watch_losses([3 * 0.97**step + 0.05 * float(noise[step]) for step in range(200)], tmp_path)


def test_an_unlucky_batch_late_in_training_passes(tmp_path):
    watch_losses([2.0] * 25 + [0.05] * 60 + [0.9] + [0.05] * 5, tmp_path)


def test_a_jump_above_where_it_began_stops(tmp_path):
    with pytest.raises(RunError, match=r"'align': the loss jumped to 9, 18\.0 times its median of 0\.5.*near step 61"):
        watch_losses([2.0] * 20 + [0.5] * 40 + [9.0], tmp_path)
    watch_losses([2.0] * 20 + [0.5] * 40 + [9.0], tmp_path / "other", spike=math.inf)


def test_a_loss_that_diverges_from_the_first_steps_stops(tmp_path):
    with pytest.raises(RunError, match=r" 60, 5\.6 times .*near step 3"):
        watch_losses([10.8, 0.5, 60.0, 136.0], tmp_path)
    watch_losses([0.05, 0.9, 0.05, 11.0], tmp_path / "unlucky")
    watch_losses([10.8, 0.5, 60.0, 136.0], tmp_path / "unwatched", spike=math.inf)


def test_the_batch_is_saved_and_readable(tmp_path):
    watch = LossWatch("align", tmp_path, math.inf, lambda ids: " ".join(map(str, ids)))
    watch.add(1, torch.tensor(1.0), batch((7, 8), item=torch.ones(2)))
    watch.add(1, torch.tensor(float("nan")), batch((9,), item=[torch.ones(2), torch.zeros(3)]))
    with pytest.raises(RunError, match=r"nan near step 1, .* 2e-05, 0\.001\. "):
        watch.check([1e-3, 2e-5])
    folder = tmp_path / "bad_batch"
    assert json.loads((folder / "batch-1.json").read_text())["rows"] == ["9"]
    assert load_file(folder / "batch-0.safetensors")["features.item.0"].tolist() == [1, 1]
    assert load_file(folder / "batch-1.safetensors").keys() == {
        "input_ids",
        "labels",
        "features.item.0",
        "features.item.1",
    }


def test_features_that_are_one_tensor_several_times_are_saved(tmp_path):
    stored = torch.arange(6.0)
    watch = LossWatch("align", tmp_path, math.inf)
    watch.add(1, torch.tensor(float("nan")), batch((9,), item=[stored[:2], stored[2:], stored[:2]]))
    with pytest.raises(RunError, match="Its batch is in"):
        watch.check([1e-3])
    assert load_file(tmp_path / "bad_batch" / "batch-0.safetensors")["features.item.2"].tolist() == [0, 1]


def test_a_batch_that_cannot_be_saved_hides_no_loss(tmp_path):
    (tmp_path / "bad_batch").write_text("a file in the way")
    with pytest.raises(RunError, match=r"nan near step 1.*could not.*bad_batch"):
        watch_losses([float("nan")], tmp_path)


def test_losses_that_wait_are_all_looked_at_and_only_the_last_keeps_its_features(tmp_path):
    watch = LossWatch("align", tmp_path, math.inf)
    for step, loss in enumerate([1.0, float("inf"), 1.0], start=1):
        watch.add(step, torch.tensor(loss), batch((step,), item=torch.ones(2)))
    with pytest.raises(RunError, match="the loss is inf near step 2"):
        watch.check([1e-3])
    assert load_file(tmp_path / "bad_batch" / "batch-0.safetensors").keys() == {"input_ids", "labels"}


def test_passes_of_one_step_are_added_up(tmp_path):
    watch = LossWatch("align", tmp_path, 3.0)
    for step in range(1, 31):
        for _ in range(2):
            watch.add(step, torch.tensor(0.5), batch())
        watch.check([1e-3])
    watch.add(31, torch.tensor(1.9), batch())
    watch.add(31, torch.tensor(1.9), batch())
    with pytest.raises(RunError, match=r"jumped to 3\.8"):
        watch.check([1e-3])
