"""Weights & Biases: what it gets, and that a resumed run is continued there."""

import sys
import types

import pytest

from adaptkit.errors import RunError
from adaptkit.training.stage import train_stage
from adaptkit.training.wandb_run import ID_FILE, wandb_run_closed
from tests.stages import optimizer_config, stage_config
from tests.unit.training.fake_workflow import FakeData, FakeSampler, FakeWorkflow, collate


def train(folder, *, stage="align", max_steps=2, **options):
    """A stage of a run directory, in one folder of which the runs of all stages belong together."""
    settings = stage_config(
        name=stage, optimizer=optimizer_config(learning_rate=1e-2), max_steps=max_steps, save_steps=1, logging_steps=1
    )
    data = FakeData()
    options |= {"output_dir": folder / stage, "metrics_path": folder / "metrics.jsonl", "report_to": ["wandb"]}
    return train_stage(FakeWorkflow(), data, collate, settings, sampler=FakeSampler(len(data)), **options)


def interrupted(folder, **options):
    with wandb_run_closed():
        train(folder, **options)
        raise KeyboardInterrupt


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that takes down what it is told."""
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()
    fake.run, fake.calls, fake.known = None, [], set()

    def init(**options):
        fake.calls.append(("init", options))
        fake.run = types.SimpleNamespace(finish=finish, resumed=options.get("id") in fake.known)
        fake.known.add(options.get("id"))
        return fake.run

    def finish(exit_code):
        fake.calls.append(("finish", exit_code))
        fake.run = None

    fake.init = init
    fake.config = types.SimpleNamespace(update=lambda values, allow_val_change: fake.calls.append(("config", *values)))
    fake.define_metric = lambda name, step_metric: fake.calls.append(("metric", name, step_metric))
    names = ("/loss", "/step")
    fake.log = lambda values: fake.calls.append(("log", *sorted(name for name in values if name.endswith(names))))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_all_stages_are_one_run_under_their_names(wandb, tmp_path):
    with wandb_run_closed():
        train(tmp_path, max_steps=1)
        train(tmp_path, stage="learn", max_steps=1)
    identity = (tmp_path / ID_FILE).read_text()
    options = {"project": "adaptkit", "dir": str(tmp_path), "id": identity, "resume": "allow"}
    assert wandb.calls == [
        ("init", options),
        ("config", "align"), ("metric", "align/*", "align/step"), ("log", "align/loss", "align/step"),
        ("config", "learn"), ("metric", "learn/*", "learn/step"), ("log", "learn/loss", "learn/step"),
        ("finish", 0),
    ]  # fmt: skip


def test_a_resumed_run_is_the_same_one_and_another_directory_another(wandb, tmp_path):
    with wandb_run_closed():
        train(tmp_path / "one", max_steps=1)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "one", max_steps=2, resume="auto")
    with wandb_run_closed():
        train(tmp_path / "other", max_steps=1)
    first, again, other = [call[1]["id"] for call in wandb.calls if call[0] == "init"]
    assert first == again != other
    assert [call[1] for call in wandb.calls if call[0] == "finish"] == [0, 1, 0]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_run_that_is_not_known_there_gets_what_came_before(wandb, tmp_path, is_known):
    with wandb_run_closed():
        train(tmp_path, max_steps=1)
        train(tmp_path, stage="learn", max_steps=2)
    if not is_known:  # as in offline mode
        wandb.known.clear()
    wandb.calls.clear()
    with wandb_run_closed():
        train(tmp_path, max_steps=1, resume="auto")
        train(tmp_path, stage="learn", max_steps=3, resume="auto")
    logged = [call[-1] for call in wandb.calls if call[0] == "log"]
    assert logged == [*([] if is_known else ["align/step", "learn/step", "learn/step"]), "learn/step"]


def test_variables_and_a_run_of_the_users_own_are_stronger(wandb, tmp_path, monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.setenv(name, "mine")
    with wandb_run_closed():
        train(tmp_path / "one", max_steps=1)
    assert wandb.calls[0] == ("init", {"resume": "allow"})
    wandb.calls.clear()
    wandb.run = object()
    with wandb_run_closed():
        train(tmp_path / "two", max_steps=1)
    assert {call[0] for call in wandb.calls} == {"config", "metric", "log"}


def test_a_missing_login_is_said_with_what_to_do(wandb, tmp_path):
    def refuse(**options):
        raise ValueError("api_key not configured (no-tty)")

    wandb.init = refuse
    with pytest.raises(RunError, match=r"api_key not configured.*wandb login.*WANDB_MODE=offline"):
        train(tmp_path)


@pytest.mark.filterwarnings("default")
def test_the_real_one_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for steps in (1, 2):
        with wandb_run_closed():
            train(tmp_path, max_steps=steps, resume="auto" if steps == 2 else None)
    identity = (tmp_path / ID_FILE).read_text()
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {path.name for path in files} == {f"run-{identity}.wandb"}
