"""Trains in forked processes that are killed at chosen points, resumes them, and reports where each run ended.

Usage: `python -m tests.unit.training.kill_runs WORKDIR NUM_KILLS`. A process of its own, so that it can fork before
torch has started threads.
The audit hook sees every file that Python opens, renames or removes, so counting its events and dying at the n-th
reaches every stage of a save.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from adaptkit.hashing import hash_tensors
from adaptkit.training.metrics import read_metrics
from adaptkit.training.settings import GroupSettings, OptimizerSettings, StageSettings
from adaptkit.training.stage import train_stage
from tests.unit.training.fake_workflow import FakeData, FakeSampler, FakeWorkflow, collate

_FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class DieAfterStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class FileEvents:
    """Counts file operations below a folder, and dies at the n-th."""

    def __init__(self, folder, die_at):
        self.folder, self.die_at, self.count = str(folder), die_at, 0
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if event in _FILE_EVENTS and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def settings(train, workers):
    return StageSettings(
        name="stage",
        train=train,
        optimizer=OptimizerSettings(
            learning_rate=1e-2, weight_decay=0.1,
            groups={"insertion": GroupSettings(name="muon", learning_rate=6e-3)} if "insertion" in train else {},
        ),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        save_steps=2,
        save_total_limit=2,
        logging_steps=1,
        dataloader_num_workers=workers,
        bf16=True,
    )  # fmt: skip


def run(folder, result, train, workers=0, die_at=-1, die_after_step=-1):
    torch.set_num_threads(1)
    model, data = FakeWorkflow(), FakeData(22)
    frozen = {n: p for n, p in model.named_parameters() if n not in model.trainable_state_dict()}
    before = hash_tensors(frozen.items())
    events = FileEvents(folder, die_at)
    stage = train_stage(
        model, data, collate, settings(train, workers), sampler=FakeSampler(len(data)), output_dir=folder,
        resume="auto", callbacks=[DieAfterStep(die_after_step)],
    )  # fmt: skip
    optimizer = torch.load(stage.checkpoint / "optimizer.pt", weights_only=True)["state"]
    report = {
        "weights": hash_tensors(model.trainable_state_dict().items()),
        "optimizer": hash_tensors((f"{i}.{k}", v) for i, s in optimizer.items() for k, v in s.items()),
        "frozen_unchanged": hash_tensors(frozen.items()) == before,
        "steps": [line["step"] for line in read_metrics(folder / "metrics.jsonl")],
        "left": sorted(path.name for path in folder.iterdir()),
        "resumed": stage.resumed_from is not None,
        "num_events": events.count,
    }
    result.write_text(json.dumps(report))


def forked(*args, **kwargs):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run(*args, **kwargs)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_and_resumed(folder, train, **kill):
    result = folder.with_suffix(".json")
    outcome = forked(folder, result, train, **kill)
    assert outcome == signal.SIGKILL, f"{kill} ended with {outcome}"
    before = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    outcome = forked(folder, result, train, workers=kill.get("workers", 0))
    assert outcome == 0, f"resuming after {kill} ended with {outcome}"
    return {**json.loads(result.read_text()), "kill": kill, "before": before}


def main(work, num_kills):
    gc.freeze()  # a Trainer collects garbage when it starts, which would copy every page after a fork
    everything = ("projector", "insertion", "ends")
    report = {}
    for name, train in (("everything", everything), ("projector", ("projector",))):
        whole = work / f"{name}-whole"
        assert forked(whole, whole.with_suffix(".json"), train) == 0
        report[name] = {"whole": json.loads(whole.with_suffix(".json").read_text()), "killed": []}
    num_events = report["everything"]["whole"]["num_events"]
    points = sorted({1 + round(i * (num_events - 1) / (num_kills - 1)) for i in range(num_kills)})
    kills = [{"die_at": point} for point in points] + [{"die_after_step": 1}, {"die_after_step": 7, "workers": 2}]
    for number, kill in enumerate(kills):
        report["everything"]["killed"].append(killed_and_resumed(work / f"everything-{number}", everything, **kill))
    report["projector"]["killed"].append(killed_and_resumed(work / "projector-0", ("projector",), die_after_step=7))
    (work / "report.json").write_text(json.dumps(report))
    gc.unfreeze()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
