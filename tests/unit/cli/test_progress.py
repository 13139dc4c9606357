"""Progress where nobody watches a terminal."""

from __future__ import annotations

import io
import warnings

import torch

from adaptkit.evaluation import WorldTaskOptions
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.prediction.building import without_weights
from adaptkit.progress import progress_bar
from adaptkit.terminal import Console


def test_progress_off_a_terminal_is_a_line_now_and_then_and_none_twice() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress_bar(console, "evaluating world", interval_s=60) as advance:
        for done in range(1, 11):
            advance(done, 10, "boxes")
        advance(10, 10, "boxes")
    assert console.file.getvalue().splitlines() == ["evaluating world: boxes  1/10", "evaluating world: boxes  10/10"]


def test_a_benchmark_that_the_workflows_cannot_answer_is_known_beforehand() -> None:
    problems = get_plugin_manager().get("evaluation task", "world").extra["problems"]
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
