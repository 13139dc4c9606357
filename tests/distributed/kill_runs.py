"""Trains in forked processes that are killed at chosen points, resumes them, and reports where each run ended.

The audit hook sees every file that Python opens, renames or removes, so counting its events and dying at the n-th
reaches every moment of a save; a callback reaches the steps between.
"""

import json
import os
import random
import signal
import sys
from functools import partial

import numpy as np
import torch
from transformers import TrainerCallback

from adaptkit.data.validation import ValidationData
from adaptkit.errors import RunStoppedError
from adaptkit.files.hashing import hash_tensors
from adaptkit.processes.group import is_main_process, num_processes, process_group
from adaptkit.stage import OptimizerGroup
from adaptkit.training.checkpoints import find_newest
from adaptkit.training.metrics import read_metrics
from adaptkit.training.stage import train_stage
from tests.distributed.forking import forked
from tests.stages import optimizer_config, stage_config
from tests.unit.training.fake_workflow import FakeData, FakeSampler, FakeWorkflow, collate

EVERYTHING = ("projector", "insertion", "ends")
NUM_STEPS = 6
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class DrawingWorkflow(FakeWorkflow):
    """Draws from all three generators in each forward pass."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.loss = output.loss * (0.9 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        return output


class Signal(TrainerCallback):
    """Sends this process a signal within a step, or after it."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


class FileEvents:
    """Counts file operations below a folder, and dies at the n-th."""

    def __init__(self, folder, die_at):
        self.folder, self.die_at, self.count = str(folder), die_at, 0
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if event in FILE_EVENTS and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def settings(train, workers, num_processes):
    return stage_config(
        name="stage",
        train=train,
        optimizer=optimizer_config(
            learning_rate=1e-2, weight_decay=0.1,
            groups={"insertion": OptimizerGroup(name="muon", learning_rate=6e-3)} if "insertion" in train else {},
        ),
        per_device_train_batch_size=4 // num_processes,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        save_steps=2,
        save_total_limit=2,
        logging_steps=1,
        dataloader_num_workers=workers,
        bf16=True,
        validation={"data": ["held"], "every": 3},
    )  # fmt: skip


def held_out():
    return ValidationData(FakeData(30), ["held"] * 30, range(22, 29), collate)


def run(folder, train=EVERYTHING, workers=0, die_at=-1, send=None):
    """One process of a run, from wherever it was left; the main one writes the report."""
    with process_group():
        model, data = DrawingWorkflow(), FakeData(22)
        frozen = {n: p for n, p in model.named_parameters() if n not in model.trainable_state_dict()}
        before = hash_tensors(frozen.items())
        events = FileEvents(folder, die_at if is_main_process() else -1)
        several = num_processes() > 1
        resumes = find_newest(folder) is not None
        try:
            stage = train_stage(
                model, data, collate, settings(train, workers, num_processes()), sampler=FakeSampler(len(data)),
                output_dir=folder, resume="auto", strategy="ddp" if several else "none", validation=held_out(),
                callbacks=[Signal(*send)] if send is not None and send_here(several) else [],
            )  # fmt: skip
        except RunStoppedError as error:
            folder.with_suffix(".stopped").write_text(str(error))
            sys.exit(error.exit_code)
        if is_main_process():
            report(folder, model, frozen, before, stage, events, resumes)


def send_here(several):
    """One process alone hears of SIGTERM; which one should not matter."""
    return not several or not is_main_process()


def report(folder, model, frozen, before, stage, events, resumes):
    optimizer = torch.load(stage.checkpoint / "optimizer.pt", weights_only=True)["state"]
    values = {
        "weights": hash_tensors(model.trainable_state_dict().items()),
        "optimizer": hash_tensors((f"{i}.{k}", v) for i, s in optimizer.items() for k, v in s.items()),
        "frozen_unchanged": hash_tensors(frozen.items()) == before,
        "steps": [line["step"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line],
        "validations": [
            [line["step"], line["validation/loss"], line.get("validation/best_step")]
            for line in read_metrics(folder / "metrics.jsonl")
            if "validation/loss" in line
        ],
        "left": sorted(path.name for path in folder.iterdir()),
        "resumed": resumes,
        "num_events": events.count,
    }
    folder.with_suffix(".json").write_text(json.dumps(values))


def whole(folder, num_processes, **options):
    assert set(forked(num_processes, partial(run, folder, **options))) == {0}
    return json.loads(folder.with_suffix(".json").read_text())


def stopped_and_resumed(folder, num_processes, expected, *, train=EVERYTHING, workers=0, **stop):
    codes = forked(num_processes, partial(run, folder, train, workers, **stop))
    assert expected in codes, f"{stop} ended with {codes}"
    before = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    after = whole(folder, num_processes, train=train, workers=workers)
    return {**after, "stop": {**stop, "workers": workers}, "before": before, "codes": codes}


def main(work, num_kills, num_kills_of_two, seed):
    """Kills at random points of a run in one process, and of one in two; and stops by SIGTERM."""
    draw = random.Random(seed)
    told = {}
    for processes, kills in ((1, num_kills), (2, num_kills_of_two)):
        straight = whole(work / f"{processes}-whole", processes)
        points = sorted(draw.sample(range(1, straight["num_events"] + 1), kills - 2))
        stops = [{"die_at": point} for point in points]
        stops += [{"send": (draw.randrange(1, NUM_STEPS), signal.SIGKILL), "workers": 2 * i} for i in (0, 1)]
        killed = [
            stopped_and_resumed(work / f"{processes}-{number}", processes, -signal.SIGKILL, **stop)
            for number, stop in enumerate(stops)
        ]
        asked = stopped_and_resumed(work / f"{processes}-asked", processes, 143, send=(3, signal.SIGTERM))
        asked["said"] = (work / f"{processes}-asked.stopped").read_text()
        told[str(processes)] = {"whole": straight, "killed": killed, "asked": asked}
    told["projector"] = {
        "whole": whole(work / "projector-whole", 1, train=("projector",)),
        "killed": [
            stopped_and_resumed(
                work / "projector-0", 1, -signal.SIGKILL, train=("projector",), send=(3, signal.SIGKILL)
            )
        ],
    }
    return told
