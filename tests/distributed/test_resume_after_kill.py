"""Killed at any moment, or asked to stop, and gone on: the same bits as if nothing had happened."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.forks import NUM_KILLS, NUM_KILLS_OF_TWO
from tests.distributed.kill_runs import NUM_STEPS
from tests.distributed.recipe_runs import MOMENTS

pytestmark = pytest.mark.timeout(900)  # all runs happen in the first test: a minute or two, unless the machine is busy

kinds = pytest.mark.parametrize("kind", ["1", "2", "projector"])
processes = pytest.mark.parametrize("num_processes", ["1", "2"])


@kinds
def test_killed_and_resumed_ends_in_the_same_bits(forks: dict[str, Any], kind: str) -> None:
    whole = forks["killed"][kind]["whole"]
    for run in forks["killed"][kind]["killed"]:
        assert run["weights"] == whole["weights"], run
        assert run["optimizer"] == whole["optimizer"], run
        assert run["frozen_unchanged"], run


@kinds
def test_no_metric_is_lost_or_written_twice(forks: dict[str, Any], kind: str) -> None:
    told = forks["killed"][kind]
    assert all(run["steps"] == list(range(1, NUM_STEPS + 1)) for run in [told["whole"], *told["killed"]])
    assert [step for step, _, _ in told["whole"]["validations"]] == [0, 3, 6]
    assert all(run["validations"] == told["whole"]["validations"] for run in told["killed"])


@kinds
def test_nothing_half_written_is_left(forks: dict[str, Any], kind: str) -> None:
    told = forks["killed"][kind]
    for run in [told["whole"], *told["killed"]]:
        # The last two, and what was the best when each of them was written
        best = {f"checkpoint-{best}" for _, _, best in told["whole"]["validations"][1:]}
        assert run["left"] == sorted(best | {"checkpoint-4", "checkpoint-6", "metrics.jsonl"}), run


def test_kills_fell_before_between_and_within_saves(forks: dict[str, Any]) -> None:
    runs = [run for kind in ("1", "2") for run in forks["killed"][kind]["killed"]]
    assert len(runs) == NUM_KILLS + NUM_KILLS_OF_TWO == 20
    assert {run["resumed"] for run in runs} == {True, False}
    assert sum(any(name.startswith(".staging") for name in run["before"]) for run in runs) >= 5
    assert len({tuple(run["before"]) for run in runs}) > 4
    assert {run["stop"]["workers"] for run in runs} == {0, 2}


@processes
def test_sigterm_ends_all_processes_after_the_same_step_with_a_checkpoint(
    forks: dict[str, Any], num_processes: str
) -> None:
    whole, run = forks["killed"][num_processes]["whole"], forks["killed"][num_processes]["asked"]
    assert run["codes"] == [143] * int(num_processes)
    assert run["said"].endswith("checkpoint-3; continue with --resume auto")
    assert "checkpoint-3" in run["before"]
    assert run["resumed"]
    assert (run["weights"], run["optimizer"]) == (whole["weights"], whole["optimizer"])
    assert run["steps"] == whole["steps"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_outside_of_training_is_completed(forks: dict[str, Any], moment: str) -> None:
    told = forks["recipes"]
    assert told["killed"][moment] == told["whole"]
    assert {"results.json", "report.html", "recipe.yaml"} < set(told["whole"]["files"])


@pytest.mark.parametrize("split", ["passes", "two", "four"])
def test_any_number_of_processes_takes_the_same_steps(forks: dict[str, Any], split: str) -> None:
    alone, other = (forks["recipes"]["any_number"][name] for name in ("alone", split))
    assert [line["step"] for line in alone] == [1, 2, 3, 4, 5, 6] * 2  # 10 samples by 4, twice
    for key in ("stage", "step", "learning_rate"):
        assert [line[key] for line in other] == [line[key] for line in alone]
    assert [line["loss"] for line in other] == pytest.approx([line["loss"] for line in alone], rel=1e-5)
