import contextlib
import errno
import importlib.util
import json
import re
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import TrainerCallback

from adaptkit.errors import DataError, ModelError, RecipeError, RunError
from adaptkit.reporting import Reporter
from adaptkit.stage import OptimizerGroup
from adaptkit.training.checkpoints import FILES_FILE, STAGE_FILE, list_checkpoints
from adaptkit.training.metrics import read_metrics
from adaptkit.training.stage import train_stage
from tests.stages import optimizer_config, stage_config
from tests.unit.training.fake_workflow import FakeData, FakeSampler, FakeWorkflow, collate

EVERYTHING = ("projector", "insertion", "ends")


def settings(**changes):
    values = {
        "train": EVERYTHING,
        "optimizer": optimizer_config(learning_rate=1e-2),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
    }
    return stage_config(**values | changes)


class Listener(Reporter):
    def __init__(self):
        self.messages, self.progress = [], []

    def message(self, text):
        self.messages.append(text)

    def training(self, stage):
        return contextlib.nullcontext(self.progress.append)


def train(model, folder, stage_settings, data=None, **kwargs):
    data = FakeData() if data is None else data
    kwargs.setdefault("sampler", FakeSampler(len(data)))
    return train_stage(model, data, collate, stage_settings, output_dir=folder, **kwargs)


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("parts", [("projector",), ("insertion", "ends"), EVERYTHING])
def test_one_step_changes_the_trained_parts_and_nothing_else(model, tmp_path, parts):
    before = copy_of(model)
    train(model, tmp_path, settings(train=parts, max_steps=1, warmup_ratio=0.0))
    trained = {name for part in parts for name in model.trainable_parts()[part]}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != (name in trained), name


def test_accumulated_gradients_match_one_large_batch(tmp_path):
    ends = []
    for batch, accumulation in ((8, 1), (2, 4)):
        model = FakeWorkflow(dropout=0.0)
        train(
            model, tmp_path / str(batch),
            settings(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=3),
        )  # fmt: skip
        ends.append(model.trainable_state_dict())
    for name, tensor in ends[0].items():
        # AdamW divides by tiny gradient magnitudes, so float32 rounding of sums in another order grows to about 1e-5
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-4, atol=2e-5, msg=name)


def test_a_checkpoint_holds_the_models_own_tensors_and_no_state_of_frozen_ones(model, tmp_path):
    result = train(model, tmp_path, settings(train=("projector",)))
    with safe_open(result.checkpoint / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.trainable_state_dict())
    optimizer = torch.load(result.checkpoint / "optimizer.pt", weights_only=True)
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == 2
    assert len(optimizer["state"]) == 2
    assert {path.suffix for path in result.checkpoint.iterdir()} == {".json", ".pt", ".pth", ".safetensors"}


def test_only_the_newest_checkpoints_are_kept(model, tmp_path):
    train(model, tmp_path, settings(max_steps=7, save_steps=1, save_total_limit=3))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-6", "checkpoint-7"]


class DiskFills:
    """Stands for a writer that fails once the disk is full, from its n-th call on."""

    def __init__(self, real, error, after):
        self.real, self.error, self.calls_left = real, error, after

    def __call__(self, *args, **kwargs):
        if self.calls_left == 0:
            raise self.error
        self.calls_left -= 1
        return self.real(*args, **kwargs)


@pytest.mark.parametrize(
    ("owner", "writer", "calls_a_save", "error"),
    [
        (FakeWorkflow, "save_pretrained", 1, OSError(errno.ENOSPC, "No space left on device")),
        (torch, "save", 3, OSError(errno.ENOSPC, "No space left on device")),
        (torch, "save", 3, RuntimeError("unexpected pos 64 vs 0: No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_previous_checkpoint(model, tmp_path, monkeypatch, owner, writer, calls_a_save, error):
    train(model, tmp_path, settings(max_steps=2))
    whole = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-2").iterdir()}
    real = getattr(owner, writer)
    fills = DiskFills(real, error, after=calls_a_save - 1)
    monkeypatch.setattr(owner, writer, lambda *args, **kwargs: fills(*args, **kwargs))
    with pytest.raises(RunError, match=r"checkpoint-4: .*checkpoint-2, .*--resume auto"):
        train(FakeWorkflow(), tmp_path, settings(), resume="auto")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "metrics.jsonl"]
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-2").iterdir()}

    monkeypatch.setattr(owner, writer, real)
    again, straight = FakeWorkflow(), FakeWorkflow()
    train(again, tmp_path, settings(), resume="auto")
    train(straight, tmp_path / "straight", settings(max_steps=2))
    train(straight, tmp_path / "straight", settings(), resume="auto")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), straight.parameters()))


def test_the_alignment_stage_resumes_to_the_same_bits(tmp_path):
    stage = settings(train=("projector",), max_steps=6, lr_scheduler_type="constant")
    straight, stopped, resumed = FakeWorkflow(), FakeWorkflow(), FakeWorkflow(seed=5)
    train(straight, tmp_path / "straight", stage)
    train(stopped, tmp_path / "stopped", stage.model_copy(update={"max_steps": 4}))
    resumed.load_state_dict(FakeWorkflow().state_dict())
    heard = Listener()
    result = train(resumed, tmp_path / "stopped", stage, resume="auto", reporter=heard)
    assert f"stage {stage.name!r} has 6 steps now instead of 4" in heard.messages[1]
    assert str(tmp_path / "stopped" / "checkpoint-4") in heard.messages[0]
    assert [one.step for one in heard.progress] == [4, 5, 6, 6]
    assert heard.progress[-1].is_end
    assert [line["step"] for line in result.metrics] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters()))


def test_resuming_a_finished_stage_loads_its_weights_and_trains_no_step(model, tmp_path):
    train(model, tmp_path, settings())
    other = FakeWorkflow(seed=3)
    result = train(other, tmp_path, settings(), resume="auto")
    assert (result.final_step, result.seconds) == (4, 0.0)
    own = model.trainable_state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in other.trainable_state_dict().items())


def test_resuming_from_an_older_checkpoint_sets_the_newer_ones_aside(model, tmp_path):
    first = train(model, tmp_path, settings())
    train(FakeWorkflow(), tmp_path, settings(), resume=tmp_path / "checkpoint-2")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-2", "checkpoint-4", "abandoned-checkpoint-4", "metrics.jsonl"}
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert len(first.metrics) == 4


def test_a_fresh_start_never_overwrites_checkpoints(model, tmp_path):
    train(model, tmp_path, settings())
    with pytest.raises(RecipeError, match=r"checkpoint-4.*--resume auto.*`--output`"):
        train(model, tmp_path, settings())


def test_resuming_with_other_settings_says_which(model, tmp_path):
    train(model, tmp_path, settings())
    with pytest.raises(RecipeError, match="seed was 0, is now 1; train_batch_size was 4, is now 8"):
        train(model, tmp_path, settings(per_device_train_batch_size=8, seed=1, max_steps=9), resume="auto")
    with pytest.raises(RecipeError, match="num_samples was 24, is now 20"):
        train(model, tmp_path, settings(max_steps=9), data=FakeData(20), resume="auto")
    with pytest.raises(RecipeError, match=r"complete checkpoint\..*: checkpoint-2, .*-4"):
        train(model, tmp_path, settings(), resume=tmp_path / "checkpoint-3")


def test_what_the_recipe_says_of_the_data_is_compared_too(model, tmp_path):
    identity = {"max_length": 64, "data": {"pictures": {"seed": 0}}}
    train(model, tmp_path, settings(), identity=identity)
    changed = {"max_length": 64, "data": {"pictures": {"seed": 1}}}
    with pytest.raises(RecipeError, match=r"data\.pictures\.seed was 0, is now 1"):
        train(FakeWorkflow(), tmp_path, settings(max_steps=9), resume="auto", identity=changed)


def test_a_named_checkpoint_goes_on_with_other_learning_rates(model, tmp_path):
    def with_rate(rate, **changes):
        return settings(optimizer=optimizer_config(learning_rate=rate), save_steps=2, **changes)

    rates = []

    class Rates(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
            rates.append(optimizer.param_groups[0]["lr"])

    train(model, tmp_path, with_rate(1e-2, lr_scheduler_type="linear", warmup_ratio=0.0))
    lower = with_rate(1e-3, lr_scheduler_type="linear", warmup_ratio=0.0)
    hint = r"learning_rate was 0\.01, is now 0\.001.*--resume .*checkpoint-4"
    with pytest.raises(RecipeError, match=hint):
        train(FakeWorkflow(), tmp_path, lower, resume="auto")
    train(FakeWorkflow(), tmp_path, lower, resume=tmp_path / "checkpoint-2", callbacks=[Rates()])
    assert rates == pytest.approx([1e-3 * 2 / 4, 1e-3 * 1 / 4])
    muon = settings(optimizer=optimizer_config(name="muon"))
    with pytest.raises(RecipeError, match=r"optimizer\.name was adamw, is now muon"):
        train(FakeWorkflow(), tmp_path, muon, resume=tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("schedule", "warmup_ratio"),
    [("cosine", 0.25), ("polynomial", 0.0), ("cosine_with_restarts", 0.0), ("constant_with_warmup", 0.7)],
)
def test_a_stage_that_is_lengthened_has_the_rates_of_its_new_length(tmp_path, schedule, warmup_ratio):
    def rates_of(folder, max_steps, **changes):
        rates = {}

        class Rates(TrainerCallback):
            def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
                rates[state.global_step + 1] = [group["lr"] for group in optimizer.param_groups]

        stage = settings(lr_scheduler_type=schedule, warmup_ratio=warmup_ratio, max_steps=max_steps, **changes)
        train(FakeWorkflow(), folder, stage, resume="auto", callbacks=[Rates()])
        return rates

    straight = rates_of(tmp_path / "straight", 6, save_steps=0)
    rates_of(tmp_path / "lengthened", 4, save_steps=0)
    assert rates_of(tmp_path / "lengthened", 6, save_steps=0) == {step: straight[step] for step in (5, 6)}


def test_a_resumed_stage_saves_and_logs_as_often_as_it_says_now(tmp_path):
    train(FakeWorkflow(), tmp_path, settings(max_steps=2, save_steps=2, logging_steps=5))
    now = settings(max_steps=5, save_steps=1, save_total_limit=9, logging_steps=1)
    lines = train(FakeWorkflow(), tmp_path, now, resume="auto").metrics
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in (2, 3, 4, 5)]
    assert [line["step"] for line in lines] == [1, 3, 4, 5]  # the first step's loss is logged, whatever logging_steps


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STAGE_FILE])
@pytest.mark.parametrize("damage", ["gone", "halved", "empty"])
def test_a_damaged_checkpoint_is_named_with_the_one_before(model, tmp_path, name, damage):
    train(model, tmp_path, settings())
    file = tmp_path / "checkpoint-4" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) // 2 if damage == "halved" else 0])
    what = "is missing" if damage == "gone" else r"has [\d,]+ of [\d,]+ bytes"
    said = rf"checkpoint-4 is damaged: {re.escape(name)} {what}.*checkpoint-2"
    with pytest.raises(RunError, match=said):
        train(FakeWorkflow(), tmp_path, settings(), resume="auto")


def test_a_schedule_that_ends_at_a_rate_goes_with_two_optimisers(model, tmp_path):
    optimizer = optimizer_config(groups={"projector": OptimizerGroup(name="muon")})
    stage = settings(train=("projector", "ends"), lr_scheduler_type="polynomial", optimizer=optimizer)
    result = train(model, tmp_path, stage)
    assert result.final_step == 4


def test_a_checkpoint_of_another_model_is_refused(model, tmp_path, monkeypatch):
    train(model, tmp_path, settings())
    everything = model.trainable_state_dict()
    monkeypatch.setattr(FakeWorkflow, "trainable_state_dict", lambda self: {"stranger": everything["lm_head.weight"]})
    with pytest.raises(ModelError, match=r"another model: .*\(stranger\)"):
        train(FakeWorkflow(), tmp_path, settings(), resume="auto")


def test_a_loss_that_is_no_number_stops_before_the_step(model, tmp_path):
    data = FakeData()
    data.feelings[list(FakeSampler(len(data)))[9]] = float("inf")  # falls into the third batch
    weights = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            weights.update({name: tensor.clone() for name, tensor in model.trainable_state_dict().items()})

    with pytest.raises(
        RunError,
        match=r"'align': the loss is nan near step 3.*lower the learning rate.*--resume .*checkpoint-2",
    ):
        train(model, tmp_path, settings(), data=data, callbacks=[Watch()])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.trainable_state_dict().items())


def test_weights_that_are_no_numbers_are_never_saved(model, tmp_path):
    class Poison(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 3:
                model.lm_head.weight.data[0, 0] = float("nan")

    with pytest.raises(RunError, match=r"lm_head\.weight .* non-finite .* step 4"):
        train(model, tmp_path, settings(), callbacks=[Poison()])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2"]


def test_parts_that_do_not_exist_or_learn_unasked_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeWorkflow, "set_trainable", lambda self, parts: self.requires_grad_(True))
    with pytest.raises(ModelError, match=r"4 .*\(encoder\.bias, .*, frozen_layer\.bias"):
        train(model, tmp_path, settings())
    with pytest.raises(ModelError, match=r"in the part 'side'\. Parts it has: projector, insertion, ends"):
        train(model, tmp_path, settings().model_copy(update={"train": ["side"]}))


def test_an_empty_dataset_is_a_data_error(model, tmp_path):
    with pytest.raises(DataError, match="'align' has no data"):
        train(model, tmp_path, settings(), sampler=FakeSampler(0))


def test_bf16_computes_in_bfloat16_and_leaves_forward_and_weights_alone(model, tmp_path):
    seen = []
    hook = model.inserted.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    train(model, tmp_path, settings(bf16=True))
    hook.remove()
    assert set(seen) == {torch.bfloat16}
    assert "forward" not in vars(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "use_cache")
    assert not model.training


def test_gradient_checkpointing_is_on_only_while_training(model, tmp_path):
    train(model, tmp_path, settings(gradient_checkpointing=True))
    assert model.checkpointing_calls == [{"use_reentrant": False}, "off"]


def test_metrics_name_stage_loss_and_speed(model, tmp_path):
    shared_file = tmp_path / "metrics.jsonl"
    train(model, tmp_path / "a", settings(), metrics_path=shared_file)
    train(model, tmp_path / "b", settings(name="ground"), metrics_path=shared_file)
    lines = [json.loads(line) for line in shared_file.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        (stage, step) for stage in ("align", "ground") for step in (1, 2, 3, 4)
    ]
    assert {"loss", "grad_norm", "learning_rate", "epoch", "samples_per_second"} < lines[0].keys()


def test_tensorboard_files_are_written_where_asked_for(model, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(model, tmp_path / "plain", settings())
    assert not list(tmp_path.rglob("events.out.*"))
    options = {"report_to": ["tensorboard"], "resume": "auto"}
    train(model, tmp_path / "board", settings(max_steps=2), **options)
    train(FakeWorkflow(), tmp_path / "board", settings(), **options)
    events = EventAccumulator(str(tmp_path / "board" / "tensorboard"))
    events.Reload()
    for name in ("loss", "learning_rate", "grad_norm", "epoch"):
        assert [event.step for event in events.Scalars(f"train/{name}")] == [1, 2, 3, 4]


def test_a_service_that_is_not_there_is_named_before_training(model, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"no service named 'wandbb'. Did you mean 'wandb'\?"):
        train(model, tmp_path, settings(), report_to=["wandbb"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"'wandb' is not installed.*pip install wandb"):
        train(model, tmp_path, settings(), report_to=["wandb"])
    assert list_checkpoints(tmp_path) == []


def test_every_file_of_a_checkpoint_has_a_checksum(model, tmp_path):
    checkpoint = train(model, tmp_path, settings()).checkpoint
    earlier = list_checkpoints(tmp_path)[0]
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(RunError) as error:
            train(FakeWorkflow(), tmp_path, settings(), resume="auto")
        for word in (str(checkpoint), "damaged", earlier.name):
            assert word in str(error.value), path.name
        path.write_bytes(content)


def test_a_run_resumes_from_a_checkpoint_that_records_sizes_alone(model, tmp_path):
    checkpoint = train(model, tmp_path, settings()).checkpoint
    path = checkpoint / FILES_FILE
    files = json.loads(path.read_text())
    path.write_text(json.dumps({name: values["size"] for name, values in files.items()}))
    assert train(FakeWorkflow(), tmp_path, settings(), resume="auto").checkpoint == checkpoint
