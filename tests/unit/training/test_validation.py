"""Validation while a stage trains: what it measures, what it keeps, when it stops, and that training is as without."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from adaptkit.data.validation import ValidationData
from adaptkit.errors import RunError
from adaptkit.files.hashing import hash_tensors
from adaptkit.training.checkpoints import best_of, list_checkpoints
from adaptkit.training.stage import train_stage
from tests.stages import optimizer_config, stage_config
from tests.unit.training.fake_workflow import FakeData, FakeSampler, FakeWorkflow, collate
from tests.unit.training.test_stage import Listener

EVERYTHING = ["projector", "insertion", "ends"]


class Killed(BaseException):
    pass


class KillAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed

    on_step_begin = on_substep_end


class DrawingWorkflow(FakeWorkflow):
    """Draws from all generators in each pass, also when it is validated."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.loss = output.loss * (0.9 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return output


class HeldOut(FakeData):
    """Rows of two datasets; every third row of the first has a medium."""

    def __init__(self, num_samples=10):
        super().__init__(num_samples)
        self.ids = self.ids.flip(1)

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"media": [("feeling", index)] if index < 6 and index % 3 == 0 else []}


def held_out(order=range(10)):
    return ValidationData(HeldOut(), ["first"] * 6 + ["second"] * 4, list(order), collate)


def settings(validation, **changes):
    values = {
        "train": EVERYTHING, "optimizer": optimizer_config(learning_rate=1e-2), "per_device_train_batch_size": 4,
        "max_steps": 8, "save_steps": 4, "logging_steps": 1, "lr_scheduler_type": "constant",
    }  # fmt: skip
    if validation is not None:
        validation = {"data": ["first", "second"], "every": 2} | validation
    return stage_config(**values | {"validation": validation} | changes)


def train(folder, validation=None, model=None, data=None, listener=None, callbacks=(), resume=None, **changes):
    model = model or FakeWorkflow()
    rows = FakeData()
    validation_data = None if validation is None else data or held_out()
    result = train_stage(
        model, rows, collate, settings(validation, **changes), sampler=FakeSampler(len(rows)), output_dir=folder,
        validation=validation_data, reporter=listener, callbacks=callbacks, resume=resume,
    )  # fmt: skip
    return model, result


def validations(result):
    return [line for line in result.metrics if "validation/loss" in line]


def without_times(result):
    dropped = ("seconds", "per_second")
    return [{k: v for k, v in line.items() if not any(d in k for d in dropped)} for line in result.metrics]


def weights_of(model):
    return hash_tensors(model.trainable_state_dict().items())


def test_training_is_bit_for_bit_as_without_validation(tmp_path):
    plain, before = train(tmp_path / "plain", model=DrawingWorkflow())
    validated, after = train(tmp_path / "validated", {}, model=DrawingWorkflow())
    assert weights_of(plain) == weights_of(validated)
    losses = [[(line["step"], line["loss"]) for line in r.metrics if "loss" in line] for r in (before, after)]
    assert losses[0] == losses[1]
    ends = [torch.load(r.checkpoint / "rng_state.pth", weights_only=False)["cpu"] for r in (before, after)]
    assert torch.equal(*ends)


def test_losses_are_means_over_tokens_by_dataset_and_modality(tmp_path):
    model, result = train(tmp_path, {})
    assert [line["step"] for line in validations(result)] == [0, 2, 4, 6, 8]
    last = validations(result)[-1]
    data, losses, hits = HeldOut(), {}, {}
    for index in range(10):
        batch = collate([data[index]])
        with torch.no_grad():
            logits = model(**batch).logits[0, :-1]
        targets = batch["labels"][0, 1:]
        kept = targets != -100
        found = torch.nn.functional.cross_entropy(logits[kept], targets[kept], reduction="none").tolist()
        name = "first" if index < 6 else "second"
        kind = "feeling" if data[index]["media"] else "text"
        right = (logits[kept].argmax(-1) == targets[kept]).tolist()
        for place in {"", f"data/{name}/", f"modality/{kind}/", *([f"data/first/{kind}/"] if index < 6 else [])}:
            losses.setdefault(place, []).extend(found)
            hits.setdefault(place, []).extend(right)
    for place, values in losses.items():
        assert last[f"validation/{place}loss"] == pytest.approx(sum(values) / len(values), rel=1e-6)
        assert last[f"validation/{place}token_accuracy"] == pytest.approx(sum(hits[place]) / len(values))
    assert last["validation/tokens"] == len(losses[""])
    assert last["validation/rows"] == 10
    assert {key for key in last if key.endswith("/loss")} == {f"validation/{place}loss" for place in losses}


def test_the_order_of_rows_and_the_size_of_batches_change_nothing_but_rounding(tmp_path):
    scores = []
    for order, size in ((range(10), 4), (reversed(range(10)), 3)):
        _, result = train(tmp_path / str(size), {}, data=held_out(order), per_device_train_batch_size=size, max_steps=1)
        scores.append(validations(result)[0])
    for key in scores[0]:
        if key.endswith(("loss", "accuracy")):
            assert scores[0][key] == pytest.approx(scores[1][key], rel=1e-6), key


class Worsening(FakeWorkflow):
    """Is best after a chosen step."""

    def __init__(self, losses):
        super().__init__()
        self.losses = iter(losses)

    def scoring_tokens(self):
        self.next = next(self.losses)
        return super().scoring_tokens()

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        if self.scores:
            output.loss = output.loss * 0 + self.next
        return output


def test_the_best_checkpoint_is_kept_whatever_the_limit(tmp_path):
    listener = Listener()
    _, result = train(
        tmp_path, {}, model=Worsening([9, 5, 3, 4, 6]), listener=listener, save_steps=1, save_total_limit=1
    )
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-8"]
    assert [line.get("validation/best_step") for line in validations(result)] == [None, 2, 4, 4, 4]
    assert result.checkpoint.name == "checkpoint-8"
    assert result.final_step == 8
    assert best_of(result.checkpoint) == tmp_path / "checkpoint-4"
    ending = listener.messages[-1]
    assert "last weights" in ending
    assert "step 4" in ending
    assert "load_best" in ending


def test_a_best_step_is_saved_between_regular_saves(tmp_path):
    train(tmp_path, {}, model=Worsening([9, 3, 5, 6, 7]), save_steps=0)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-8"]
    train(tmp_path / "off", {"save_best": False}, model=Worsening([9, 3, 5, 6, 7]), save_steps=0)
    assert [path.name for path in list_checkpoints(tmp_path / "off")] == ["checkpoint-8"]


def test_a_dataset_may_say_what_is_best(tmp_path):
    _, result = train(tmp_path, {"save_best": "second"})
    last = validations(result)[-1]
    losses = {line["step"]: line["validation/data/second/loss"] for line in validations(result)[1:]}
    assert min(losses.values()) == losses[last["validation/best_step"]]


def test_a_stage_may_end_with_its_best_weights(tmp_path):
    model, result = train(tmp_path, {"load_best": True}, model=Worsening([9, 5, 3, 4, 6]))
    assert (result.checkpoint.name, result.final_step) == ("checkpoint-4", 4)
    straight, _ = train(tmp_path / "straight", max_steps=4)
    assert weights_of(model) == weights_of(straight)
    again = FakeWorkflow(seed=5)
    listener = Listener()
    _, resumed = train(tmp_path, {"load_best": True}, model=again, resume="auto", listener=listener)
    assert resumed.checkpoint == result.checkpoint
    assert weights_of(again) == weights_of(model)
    assert "best weights" in listener.messages[-1]
    assert "checkpoint-4" in listener.messages[-1]


def test_a_missing_best_checkpoint_is_named(tmp_path):
    train(tmp_path, {}, model=Worsening([9, 5, 3, 4, 6]))
    (tmp_path / "checkpoint-4").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"checkpoint-4.*load_best"):
        train(tmp_path, {"load_best": True}, resume="auto")


def test_patience_ends_a_stage_with_a_checkpoint_and_a_reason(tmp_path):
    listener = Listener()
    _, result = train(tmp_path, {"patience": 2}, model=Worsening([9, 3, 4, 5, 1]), listener=listener, save_steps=0)
    assert (result.checkpoint.name, result.final_step) == ("checkpoint-6", 6)
    said = next(text for text in listener.messages if "patience" in text)
    assert "step 6 of 8" in said
    assert "2 validations" in said
    assert "step 2" in said
    # What has stopped stays so, unless it is given more patience
    _, again = train(tmp_path, {"patience": 2}, model=Worsening([]), resume="auto", save_steps=0)
    assert (again.final_step, again.seconds) == (6, 0)
    _, longer = train(tmp_path, {"patience": 3}, model=Worsening([1]), resume="auto", save_steps=0)
    assert longer.final_step == 8
    assert [line["step"] for line in validations(longer)] == [0, 2, 4, 6, 8]


LONG = {"patience": 3, "load_best": True}


@pytest.mark.parametrize("step", range(8))
def test_a_run_that_is_killed_at_any_step_goes_on_exactly(tmp_path, step, whole_run):
    with pytest.raises(Killed):
        train(tmp_path, LONG, model=DrawingWorkflow(), callbacks=[KillAfter(step)], save_steps=3)
    again = DrawingWorkflow()
    if list_checkpoints(tmp_path):
        for tensor in again.trainable_state_dict().values():
            tensor.zero_()
    assert ends(tmp_path, *train(tmp_path, LONG, model=again, resume="auto", save_steps=3)) == whole_run


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return ends(folder, *train(folder, LONG, model=DrawingWorkflow(), save_steps=3))


def ends(folder, model, result):
    kept = list_checkpoints(folder)
    last = (kept[-1] / "model.safetensors").read_bytes()
    return [weights_of(model), without_times(result), [path.name for path in kept], result.checkpoint.name, last]


def test_validation_may_be_added_changed_and_removed_on_the_way(tmp_path):
    train(tmp_path, max_steps=2, save_steps=2)
    _, added = train(tmp_path, {}, max_steps=4, save_steps=2, resume="auto")
    assert [line["step"] for line in validations(added)] == [4]
    listener = Listener()
    _, changed = train(
        tmp_path, {"save_best": "first"}, model=Worsening([50]), max_steps=6, resume="auto", listener=listener
    )
    assert validations(changed)[-1]["validation/best_step"] == 6  # worse than before, but of something else
    assert any("other data or another measure" in text for text in listener.messages)
    _, removed = train(tmp_path, resume="auto")
    assert removed.final_step == 8


def test_progress_shows_the_last_validation_and_how_far_one_is(tmp_path):
    listener = Listener()
    train(tmp_path, {}, listener=listener)
    shown = [progress.validation for progress in listener.progress]
    assert "validating 0/3" in shown
    assert shown[-1].startswith("validation ")
    assert sum("validation loss" in text for text in listener.messages) == 5


def test_services_are_given_validation_under_its_own_name(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = FakeData()
    train_stage(
        FakeWorkflow(), rows, collate, settings({}), sampler=FakeSampler(len(rows)), output_dir=tmp_path,
        validation=held_out(), report_to=["tensorboard"],
    )  # fmt: skip
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("validation/loss")] == [0, 2, 4, 6, 8]
    assert {"train/loss", "validation/data/first/loss", "validation/modality/text/token_accuracy"} <= {
        *events.Tags()["scalars"]
    }


def test_processes_of_loaders_end_with_the_stage(tmp_path):
    """Workers leave signals alone, so one that is left over would keep the process from ending."""
    before = set(multiprocessing.active_children())
    train(tmp_path, {"every": 4}, dataloader_num_workers=1, max_steps=4)
    assert not set(multiprocessing.active_children()) - before
