"""Running variants: kept, resumed, failed and refused. Small scripts stand in for the runs, except in two tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from filelock import FileLock

from adaptkit.cli import cli
from adaptkit.compare import running
from adaptkit.compare.comparing import parse_tables
from adaptkit.compare.measures import COST_MEASURES
from adaptkit.compare.running import Outcome, Watcher, only_comparison_in, plan_runs, run_all
from adaptkit.compare.variants import budget_notes, load_variants, samples_seen
from adaptkit.compare.worker import FAILED_FILE, MEASURED_FILE, VARIANT_FILE, peak_memory, training_speed
from adaptkit.errors import RecipeError
from adaptkit.recipe import load_recipe

ABLATIONS = Path(__file__).parents[3] / "recipes" / "ablations"
SHORT = {
    "data": {
        "world_captions": {"num_samples": 32},
        "world_questions": {"num_samples": 32, "num_images": 32},
    },
    "stage_defaults": {"per_device_train_batch_size": 4, "save_steps": 1, "logging_steps": 1},
    "stages": {"align": None, "pretrain": {"start_from": None, "max_steps": 2}, "instruct": {"max_steps": 2}},
    "evaluation": {"tasks": [{"name": "world", "num_per_kind": 1}]},
}
Write = Callable[..., Path]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a variant of the reference recipe, cut to a moment."""

    def written(name: str, folder: str = "recipes", **changes: Any) -> Path:
        path = tmp_path / folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        values = {"extends": str(ABLATIONS / "inner_adapter.yaml"), "name": name, **SHORT, **changes}
        path.write_text("# A variant.\n" + yaml.safe_dump(values))
        return path

    return written


class TestInput:
    """What is refused before anything trains, and in which words."""

    def test_nothing_to_compare(self) -> None:
        with pytest.raises(RecipeError, match="name at least one recipe"):
            load_variants([], [0])
        assert invoke().exit_code == 2

    def test_two_recipes_of_one_name(self, write: Write) -> None:
        paths = [write("same"), write("same", folder="others")]
        with pytest.raises(RecipeError) as caught:
            load_variants(paths, [0])
        assert str(caught.value).startswith(f"{paths[1]}: its name 'same' is also that of {paths[0]}.")

    def test_a_recipe_without_evaluation(self, write: Write) -> None:
        path = write("silent", evaluation={"tasks": None})
        with pytest.raises(RecipeError, match=r"silent\.yaml: evaluation\.tasks: "):
            load_variants([path], [0])

    def test_recipes_with_different_evaluations(self, write: Write) -> None:
        paths = [write("a"), write("b", evaluation={"tasks": [{"name": "world", "num_per_kind": 2}]})]
        with pytest.raises(RecipeError, match=r"b\.yaml: evaluation: .*a\.yaml"):
            load_variants(paths, [0])

    def test_all_problems_are_named_together(self, write: Write, tmp_path: Path) -> None:
        paths = [tmp_path / "absent.yaml", write("silent", evaluation={"tasks": None}), write("x", seed="one")]
        result = invoke(*paths)
        assert result.exit_code == 2
        for text in ("absent.yaml", "names no benchmark", "x.yaml"):
            assert text in result.output

    def test_a_missing_model(self, write: Write, tmp_path: Path) -> None:
        path = write("far", base={"path": str(tmp_path / "nowhere")})
        with pytest.raises(RecipeError, match=r"far.yaml: base.path: "):
            load_variants([path], [0])

    @pytest.mark.parametrize(
        ("text", "words"),
        [("two,four", "give a title"), ("=two", "give a title"), ("A=", "give a title"),
         ("A=two,fuor", "no variant named 'fuor'. Did you mean 'four'?")],
    )  # fmt: skip
    def test_a_table_that_cannot_be(self, text: str, words: str) -> None:
        with pytest.raises(RecipeError) as caught:
            parse_tables([text], ["two", "four"])
        assert words in str(caught.value)

    def test_a_title_may_have_an_equals_sign(self) -> None:
        (table,) = parse_tables(["layers, N = 2=two"], ["two"])
        assert (table.title, table.names) == ("layers, N = 2", ["two"])


class TestVariants:
    """Seeds, overrides and budgets."""

    def test_every_variant_gets_the_same_seeds_and_overrides(self, write: Write) -> None:
        variants = load_variants([write("a"), write("b")], [0, 1], ["stages.pretrain.max_steps=7"])
        for variant in variants:
            assert {seed: recipe.seed for seed, recipe in variant.recipes.items()} == {0: 0, 1: 1}
            assert [recipe.stage("pretrain").seed for recipe in variant.recipes.values()] == [0, 1]
            assert variant.recipe.stage("pretrain").max_steps == 7

    def test_what_differs_beside_what_is_compared_is_noted(self, write: Write) -> None:
        longer = {**SHORT["stages"], "instruct": {"max_steps": 3}}  # type: ignore[dict-item]
        variants = load_variants([write("a"), write("b"), write("c", stages=longer)], [0])
        assert budget_notes(variants) == ["c does not share the number of training samples with a."]

    def test_samples_of_whole_epochs_are_not_guessed(self) -> None:
        assert samples_seen(load_recipe(ABLATIONS / "inner_adapter.yaml")) == 1920
        assert samples_seen(load_recipe(ABLATIONS / "inner_adapter.yaml", ["stages.align.max_steps=-1"])) is None

    def test_the_shipped_ablations_share_data_and_budget(self) -> None:
        variants = load_variants(sorted(ABLATIONS.glob("*.yaml")), [0])
        reference = next(variant for variant in variants if variant.name == "inner_adapter")
        left_out = {"without_pretrain", "without_align", "gated_cross_attention"}
        assert budget_notes([reference, *(v for v in variants if v.name not in left_out)]) == []
        assert {samples_seen(variant.recipe) for variant in variants} == {1920}


def stand_in(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Run a few lines instead of the worker; they know the run directory as `d`, its seed and variant's name."""
    head = (
        "import json,os,signal,sys,time;from pathlib import Path;d=Path(sys.argv[1]);seed,name=d.name,d.parent.name\n"
    )
    tail = "\n(d/'results.json').write_text('{}');(d/'measured.json').write_text('{}')"
    monkeypatch.setattr(running, "WORKER", (sys.executable, "-c", head + body + tail))
    monkeypatch.setattr(running, "_POLL_S", 0.02)


class TestRunning:
    """The order of runs, and what becomes of each."""

    def plan(self, write: Write, tmp_path: Path, seeds: int = 1) -> list[Any]:
        return plan_runs(load_variants([write("a"), write("b")], range(seeds)), tmp_path / "out")

    def test_seeds_go_round_all_variants(self, write: Write, tmp_path: Path) -> None:
        assert [run.title for run in self.plan(write, tmp_path, 2)] == [
            "a, seed 0",
            "b, seed 0",
            "a, seed 1",
            "b, seed 1",
        ]

    def test_failures_do_not_stop_the_others(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in(
            monkeypatch, "if name=='a': (d/'failed.json').write_text(json.dumps({'reason':'no luck'})); sys.exit(1)"
        )
        outcomes = run_all(self.plan(write, tmp_path))
        assert [(o.run.variant, o.reason) for o in outcomes] == [("a", "no luck"), ("b", "")]

    def test_a_killed_run_says_so_and_is_tried_again(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = self.plan(write, tmp_path)[:1]
        stand_in(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
        (outcome,) = run_all(runs)
        assert "killed by signal 9; out of memory?" in outcome.reason
        assert "log.txt" in outcome.reason
        stand_in(monkeypatch, "")
        (outcome,) = run_all(runs)
        assert (outcome.reason, outcome.kept) == ("", False)

    def test_finished_runs_are_kept(self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stand_in(monkeypatch, "")
        run_all(self.plan(write, tmp_path)[:1])
        stand_in(monkeypatch, "(d/'again').touch()")
        ended: list[Outcome] = []
        outcomes = run_all(self.plan(write, tmp_path), watcher=Watcher(ended=ended.append))
        assert [(o.run.variant, o.kept) for o in outcomes] == [("a", True), ("b", False)]
        assert ended == outcomes
        assert [(run.directory / "again").exists() for run in self.plan(write, tmp_path)] == [False, True]

    def test_jobs_run_at_the_same_time_in_one_thread_each(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Each waits to see the other: one after the other, they would wait in vain
        body = """
(d/'here').touch(); other=d.parents[1]/('b' if name=='a' else 'a')/seed/'here'
end=time.monotonic()+30
while not other.exists() and time.monotonic()<end: time.sleep(.01)
assert other.exists() and os.environ['OMP_NUM_THREADS']=='1'"""
        stand_in(monkeypatch, body)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert [outcome.reason for outcome in run_all(self.plan(write, tmp_path), jobs=2)] == ["", ""]

    def test_runs_end_with_an_interrupted_comparison(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in(monkeypatch, "(d/'pid').write_text(str(os.getpid())); time.sleep(60)")
        runs = self.plan(write, tmp_path)[:1]
        pid = runs[0].directory / "pid"

        def interrupt(*_: object) -> None:
            if pid.exists() and pid.read_text():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_all(runs, watcher=Watcher(stepped=interrupt))
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    def test_runs_of_another_recipe_are_not_mistaken_for_these(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in(monkeypatch, "")
        run_all(self.plan(write, tmp_path))
        with pytest.raises(RecipeError, match="runs of other recipes") as caught:
            plan_runs(
                load_variants([write("a", seed=3), write("b")], [0], ["stages.pretrain.max_steps=5"]), tmp_path / "out"
            )
        assert str(tmp_path / "out" / "a" / "seed-0") in str(caught.value)
        plan_runs(load_variants([write("a", description="in other words"), write("b")], [0]), tmp_path / "out")

    def test_a_folder_belongs_to_one_comparison_at_a_time(self, tmp_path: Path) -> None:
        second = only_comparison_in(tmp_path)
        with only_comparison_in(tmp_path), pytest.raises(RecipeError, match="another comparison is running"), second:
            pass
        with only_comparison_in(tmp_path):
            pass


class TestMeasuring:
    """Costs of a run."""

    def test_speed_comes_from_what_was_logged(self) -> None:
        recipe = load_recipe(ABLATIONS / "inner_adapter.yaml")
        lines = [
            {"stage": "align", "step": 10, "samples_per_second": 16.0},  # 10 steps of 16 in 10 s
            {"stage": "align", "step": 30, "samples_per_second": 32.0},  # 20 steps of 16 in 10 s
            {"stage": "pretrain", "step": 60, "samples_per_second": 16.0},  # 60 s
        ]
        assert training_speed(recipe, lines, {"instruct": 5.0}) == (120 * 16, 85.0)

    def test_peak_memory_grows_with_what_is_held(self) -> None:
        before = peak_memory()
        held = bytearray(os.urandom(1) * 300_000_000)
        after = peak_memory()
        assert before > 1_000_000
        assert after >= max(before, len(held))


@pytest.mark.timeout(900, func_only=True)
def test_a_comparison_is_killed_goes_on_where_it_was_and_ends_in_a_report(write: Write, tmp_path: Path) -> None:
    stages = {**SHORT["stages"], "pretrain": {"start_from": None, "max_steps": 20}}  # type: ignore[dict-item]
    good, out = write("good", stages=stages), tmp_path / "out"
    diverging = {"start_from": None, "max_steps": 20, "optimizer": {"learning_rate": 1e30}}
    bad = write("bad", stages={**stages, "pretrain": diverging})
    run = out / "good" / "seed-0"
    before = _kill_during_pretrain([sys.executable, "-m", "adaptkit", "compare", str(good), "--output", str(out)], run)

    result = invoke(good, bad, "--output", out, "--table", "Alone=good", "--json")
    assert result.exit_code == 1, result.output
    steps = [
        (line["stage"], line["step"]) for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    ]
    assert steps == [*(("pretrain", step) for step in range(1, 21)), ("instruct", 1), ("instruct", 2)]
    assert before < 20, "the run was over before it could be killed"
    assert (run / VARIANT_FILE).is_file()
    assert not (run / FAILED_FILE).exists()
    values = json.loads(result.stdout)  # nothing else is printed there
    rows = {row["name"]: row for row in values["rows"]}
    assert list(rows) == ["good", "bad"]
    assert rows["bad"]["scores"] == {}
    assert "loss" in rows["bad"]["failures"][0]["reason"]
    scores = rows["good"]["scores"]
    assert scores["text.base_accuracy"] == scores["text.workflow_accuracy"]
    assert {"image_questions.accuracy", "text.adapted_accuracy", "text.answer_words.adapted"} <= set(scores)
    assert all(scores[measure.key]["mean"] > 0 for measure in COST_MEASURES)
    assert "**Alone**" in (out / "comparison.md").read_text()
    assert (out / "comparison.html").read_text().startswith("<!doctype html>")

    # Again without the one that failed: nothing is run, so that it takes no time, and the result is the same
    started = time.monotonic()
    again = invoke(good, "--output", out)
    assert again.exit_code == 0, again.output
    assert again.output.count("kept") == 1
    assert time.monotonic() - started < 60
    (kept,) = json.loads((out / "comparison.json").read_text())["rows"]
    assert kept["scores"] == scores


def _kill_during_pretrain(command: list[str], run: Path) -> int:
    """Kill a comparison once a run has a checkpoint, and give that run's last step."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(run.glob("pretrain/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # nothing can be tidied up
    process.wait()
    with FileLock(run / ".lock", timeout=60):  # the run's process noticed, and is gone
        assert not (run / MEASURED_FILE).exists()
        return max(int(path.name.split("-")[1]) for path in run.glob("pretrain/checkpoint-*"))
