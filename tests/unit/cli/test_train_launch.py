"""`adaptkit train --num-processes`: what is started, and how its end is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adaptkit.cli import cli
from adaptkit.cli.group import LazyGroup
from adaptkit.errors import DataError, RunStoppedError
from adaptkit.processes import launch
from adaptkit.processes.launch import Outcome

TINY = str(Path(__file__).resolve().parents[3] / "recipes" / "iaa_vision_tiny.yaml")
DDP = "accelerator.strategy=ddp"


def train(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", TINY, *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def launched(num_processes: int, arguments: list[str]) -> Outcome:
        calls.append((num_processes, arguments))
        return Outcome(2, "data/rows.json: row 3 is bad")

    monkeypatch.setattr(launch, "launch", launched)
    return calls


def test_the_processes_are_given_what_the_user_gave(started: list[Any]) -> None:
    result = train(DDP, "--num-processes", "3", "--output", "here", "--resume", "auto", "--debug")
    assert (result.exit_code, result.stderr) == (2, "Error: data/rows.json: row 3 is bad\n")
    options = ["--output", "here", "--resume", "auto"]
    assert started == [(3, ["train", "--debug", TINY, DDP, "accelerator.num_processes=3", *options])]


def test_a_recipe_can_ask_for_them_too(started: list[Any]) -> None:
    train(DDP, "accelerator.num_processes=2")
    assert started == [(2, ["train", TINY, DDP, "accelerator.num_processes=2"])]


def test_several_processes_without_a_strategy_start_nothing(started: list[Any]) -> None:
    result = train("--num-processes", "2")
    assert result.exit_code == 2
    assert "accelerator.strategy=ddp" in result.stderr
    assert started == []


def test_a_rehearsal_is_of_one_process(started: list[Any]) -> None:
    result = train("--rehearse", "--num-processes", "2")
    assert (result.exit_code, started) == (2, [])
    assert "one process" in result.stderr


@pytest.mark.parametrize(
    ("error", "printed", "told"),
    [
        (DataError("row 3 is bad"), "Error: row 3 is bad\n", {"exit_code": 2, "is_error": True}),
        (RunStoppedError("saved it"), "saved it\n", {"exit_code": 143, "is_error": False}),
    ],
)
def test_a_process_leaves_its_error_to_its_launcher(
    error: Exception, printed: str, told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = LazyGroup({"fail": (f"{__name__}:fail", "Fails.")}, name="adaptkit")

    @group.command("fail")
    def fail() -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "get_command", lambda self, context, name: fail)
    assert CliRunner().invoke(group, ["fail"]).stderr == printed
    monkeypatch.setenv(launch.LAUNCHED_VARIABLE, "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    silent = CliRunner().invoke(group, ["fail"])
    assert (silent.output, silent.exit_code) == ("", told["exit_code"])
    report = json.loads((tmp_path / "error.json").read_text())
    assert told.items() <= report.items()
    assert report["message"] == str(error)
