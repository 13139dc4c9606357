import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
    pytest.mark.timeout(900),  # thirty short trainings: seconds, unless the machine is busy
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    work = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-m", "tests.unit.training.kill_runs", str(work), "7"]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((work / "report.json").read_text())


@pytest.mark.parametrize("parts", ["everything", "projector"])
def test_killed_and_resumed_ends_in_the_same_bits(report, parts):
    whole = report[parts]["whole"]
    for run in report[parts]["killed"]:
        assert run["weights"] == whole["weights"], run
        assert run["optimizer"] == whole["optimizer"], run
        assert run["frozen_unchanged"], run


def test_no_metric_is_lost_or_written_twice(report):
    assert report["everything"]["whole"]["steps"] == list(range(1, 10))
    for run in report["everything"]["killed"]:
        assert run["steps"] == list(range(1, 10)), run


def test_nothing_half_written_is_left(report):
    for run in [report["everything"]["whole"], *report["everything"]["killed"]]:
        assert run["left"] == ["checkpoint-8", "checkpoint-9", "metrics.jsonl"], run


def test_kills_fell_before_between_and_within_saves(report):
    runs = report["everything"]["killed"]
    assert {run["resumed"] for run in runs} == {True, False}
    assert any(name.startswith(".staging") for run in runs for name in run["before"])
    assert len({tuple(run["before"]) for run in runs}) > 4
