"""What a stage reports of its speed is what it computed."""

import pytest
import torch
from transformers import TrainingArguments

from adaptkit.training import throughput
from adaptkit.training.flops import flop_rates
from adaptkit.training.progress import ProgressCallback
from adaptkit.training.throughput import Speed, Throughput, Totals
from tests.unit.model.conftest import batch_of, build, packed


@pytest.mark.parametrize("is_packed", [False, True])
def test_samples_tokens_and_operations_leave_padding_out(is_packed):
    _, model = build("llama")
    batch = batch_of(model)
    inputs = packed(batch.inputs, batch.labels) if is_packed else {**batch.inputs, "labels": batch.labels}
    counter = Throughput(model, num_processes=2)
    counter.add(inputs)
    counter.add(inputs)
    lengths = [len(row) for row in batch.rows]
    supervised = int((inputs["labels"] != -100).sum())
    done = counter.totals()
    assert (done.samples, done.tokens) == (4 * len(lengths), 4 * sum(lengths))
    expected = flop_rates(model).total(sum(lengths), sum(n * n for n in lengths), supervised)
    assert done.flops == pytest.approx(4 * expected)


def test_utilisation_is_of_all_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    speed = Speed(2.0, Totals(8, 100, 2 * 4 * 989e12 / 2), num_processes=4)
    metrics = speed.as_metrics(torch.device("cuda"))
    assert metrics["mfu"] == pytest.approx(0.5)
    assert speed.as_texts(torch.device("cuda")) == ["4.0 samples/s", "MFU 50%", "1.0 GiB", "50 tokens/s"]


def test_a_device_that_is_not_known_has_no_utilisation(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Something else")
    assert throughput.peak_flops(torch.device("cuda")) is None
    assert "mfu" not in Speed(1.0, Totals(1, 1, 1e9), 1).as_metrics(torch.device("cpu"))


class Step:
    is_world_process_zero = True
    global_step, max_steps = 0, 10


def test_the_time_left_is_of_the_stage_and_of_all(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    _, model = build("llama")
    shown = []
    callback = ProgressCallback(shown.append, "align", Throughput(model), steps_after=50)
    state, arguments = Step(), TrainingArguments(use_cpu=True)
    callback.on_train_begin(arguments, state, None)
    now[0], state.global_step = 20.0, 4
    callback.on_step_end(arguments, state, None)
    assert [(one.step, one.num_steps, one.loss) for one in shown] == [(0, 10, None), (4, 10, None)]
    assert (shown[0].seconds_left, shown[1].seconds_left, shown[1].seconds_left_in_all) == (None, 30.0, 280.0)
    assert shown[1].speed() == ["0.0 samples/s", "0 tokens/s"]
