"""Progress where nobody watches a terminal."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import pytest
import torch

from adaptkit.cli.progress import TrainingBar, progress_bar, training_progress
from adaptkit.cli.reporter import ConsoleReporter
from adaptkit.cli.terminal import Console
from adaptkit.evaluation import WorldTaskOptions
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.prediction.building import without_weights
from adaptkit.reporting import StageStart, TrainingProgress
from tests.stages import stage_config


def test_progress_off_a_terminal_is_a_line_now_and_then_and_none_twice() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress_bar(console, "evaluating world", interval_s=60) as advance:
        for done in range(1, 11):
            advance(done, 10, "boxes")
        advance(10, 10, "boxes")
    assert console.file.getvalue().splitlines() == ["evaluating world: boxes  1/10", "evaluating world: boxes  10/10"]


def test_a_benchmark_that_the_workflows_cannot_answer_is_known_beforehand() -> None:
    problems = get_plugin_manager().get("evaluation task", "world").problems
    assert problems(WorldTaskOptions(), {"vision": ["image"], "speech": ["audio"]}) == []
    found = problems(WorldTaskOptions(), {"vision": ["image"], "grounding": ["audio"]})
    assert "'grounding'" in found[0]
    assert "audio" in found[0]


def test_weights_that_a_plugin_loads_into_a_model_without_weights_are_passed_over_in_silence() -> None:
    weights = torch.nn.Linear(2, 2).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_weights():
            torch.nn.Linear(2, 2, device="meta").load_state_dict(weights)


def at(step: int, **changes: Any) -> TrainingProgress:
    left = {"seconds_left": 30.0, "seconds_left_in_all": 280.0} if step else {}
    values = {"loss": None, "is_first_loss": False, "is_end": False, "seconds_left": None, "seconds_left_in_all": None}
    return TrainingProgress(
        "align", step, 10, speed=lambda: ["0.2 samples/s", "3 tokens/s"], **{**values, **left, **changes}
    )


def test_training_off_a_terminal_is_a_line_for_the_first_loss_one_now_and_then_and_one_at_the_end() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with training_progress(console, interval_s=60) as show:
        show(at(0))
        show(at(1, loss=2.5, is_first_loss=True))
        for step in range(1, 11):
            show(at(step, loss=2.5))
        show(at(10, loss=1.25, is_end=True, seconds_left=None, seconds_left_in_all=None))
    with training_progress(console, interval_s=0) as show:
        show(at(0))
        show(at(4))
    assert console.file.getvalue().splitlines() == [
        "align  1/10  loss 2.500",
        "align  10/10  loss 1.250  0.2 samples/s  3 tokens/s",
        "align  4/10  loss -  0.2 samples/s  3 tokens/s  0:30 left, 4:40 in all",
    ]


@pytest.mark.parametrize(("width", "seen"), [(60, "loss -"), (100, "0.2 samples/s  4:40 in all")])
def test_a_terminal_shows_what_fits_beside_the_bar(width: int, seen: str) -> None:
    bar = TrainingBar(Console(file=io.StringIO(), width=width, force_terminal=True))
    bar.show(at(0))
    bar.show(at(4, is_end=True))
    bar.progress.stop()
    plain = Console(file=io.StringIO(), width=width)
    plain.print(bar.progress.get_renderable())
    (line,) = plain.file.getvalue().splitlines()
    assert seen in line
    assert "━" in line
    assert "4/10" in line


def test_a_bar_is_taken_down_on_errors() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with contextlib.suppress(KeyboardInterrupt), training_progress(console) as show:
        show(at(0))
        raise KeyboardInterrupt
    assert "0/10" in console.file.getvalue()
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


@pytest.mark.parametrize(("num_processes", "size"), [(1, "8"), (2, "16 over 2 processes")])
def test_a_stage_is_announced_with_what_it_trains(num_processes: int, size: str) -> None:
    console = Console(file=io.StringIO(), width=120)
    stage = stage_config(train=["projector"])
    ConsoleReporter(console).stage(StageStart(stage, "1/2", {"base": 1000, "projector": 80}, 24, 3, num_processes))
    title, _, base, projector, summary = console.file.getvalue().split("\n", 1)[1].splitlines()
    assert title.strip() == "Stage 1/2: align"
    assert base.split() == ["base", "1,000", "frozen"]
    assert projector.split() == ["projector", "80", "trained"]
    assert summary == f"workflow main, 24 conversations an epoch, 3 steps of {size}, learning rate 2e-05"
