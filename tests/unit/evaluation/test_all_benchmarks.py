"""All named benchmarks run end to end through both harnesses, without a network, in the layouts that are released."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adaptkit.evaluation.public_data import BENCHMARKS

REPOSITORY = Path(__file__).resolve().parents[3]
NEEDED = ("datasets", "editdistance", "lm_eval", "lmms_eval", "soundfile", "zhconv")
pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="the extra eval is not installed"),
    pytest.mark.timeout(600),
]

HARNESS = {
    "mme": {"mme_perception_score": 500, "mme_cognition_score": 200},
    "mmbench_en_dev_static": {"gpt_eval_score": 100},
    "mmbench_cn_dev_static": {"gpt_eval_score": 100},
    "ccbench_static": {"gpt_eval_score": 100},
    "mmmu_val": {"mmmu_acc": 0.66667},  # right answers that are written as a list are not read
    "scienceqa": {"exact_match": 0},  # a sentence is not read
    "scienceqa_img": {"exact_match": 0},
    "docvqa_val": {"anls": 1},
    "vqav2_val": {"exact_match": 0.5},  # normalised where nobody disagrees, too
    "textvqa_val": {"exact_match": 1},
    "vsr_random": {"vsr_accuracy": 1 / 3},
    "vsr_zeroshot": {"vsr_accuracy": 1 / 3},
    **{name: {"pope_accuracy": 0} for b in BENCHMARKS if b.title == "POPE" for name in b.tasks},  # "Yes." is not read
    **{name: {"wer": 60} for b in BENCHMARKS if b.title == "LibriSpeech" for name in b.tasks},
    **{name: {"refcoco_ACC@0.9": 1} for b in BENCHMARKS if b.title.startswith("RefCOCO") for name in b.tasks},
}
OFFICIAL = {
    "mme": {"perception": 500, "cognition": 200, "total": 700},
    "mmbench_en_dev_static": {"circular": 1, "first pass": 1},
    "mmmu_val": {"Overall": 1},
    "scienceqa": {"acc": 100},
    "docvqa_val": {"anls": 1},
    "vqav2_val": {"accuracy": 0},  # people agree on "cat", so nothing is normalised
    "textvqa_val": {"accuracy": 100},
    "pope": {"accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": 2 / 3, "yes_ratio": 1},
    "vsr_random": {"accuracy": 1 / 3},
    "refcoco_bbox_rec_val": {"precision": 1},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process computed for all benchmarks."""
    folder = tmp_path_factory.mktemp("benchmarks")
    output = folder / "results.json"
    own = {"HF_HOME": str(folder / "hub"), "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [sys.executable, "-m", "tests.unit.evaluation.run_all_benchmarks", str(folder / "data"), str(output)]
    (folder / "data").mkdir()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(output.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_harnesses_score_every_named_task(results: dict[str, Any]) -> None:
    assert {name for benchmark in BENCHMARKS for name in benchmark.tasks} == {*HARNESS, "mmlu", "ceval-valid"}
    for task, scores in HARNESS.items():
        assert {name: results["harness"][task][name] for name in scores} == pytest.approx(scores), task


def test_official_rules_score_the_same_answers(results: dict[str, Any]) -> None:
    for task, scores in OFFICIAL.items():
        assert results["official"][task]["scores"] == pytest.approx(scores), task
    wanted = {name for benchmark in BENCHMARKS if benchmark.official for name in benchmark.tasks}
    assert set(results["official"]) == wanted


def test_subjects_of_one_size_have_the_same_mean_by_both_rules(results: dict[str, Any]) -> None:
    harness, official = results["harness"], results["official"]
    assert official["mmlu"]["scores"]["mean of subjects"] == pytest.approx(harness["mmlu"]["acc"])
    assert official["ceval-valid"]["scores"]["mean of subjects"] == pytest.approx(100 * harness["ceval-valid"]["acc"])


def test_official_details_are_by_group(results: dict[str, Any]) -> None:
    details = results["official"]["vsr_random"]["details"]
    assert details["by_relation"] == {"on": [0.5, 2], "left of": [0.0, 1]}
    assert details["by_meta_category"] == {"Topological": [0.5, 2], "Projective": [0.0, 1]}
    assert results["official"]["scienceqa"]["details"]["acc_has_image"] == "100.00"
    assert len(results["official"]["mmlu"]["details"]["per_subject"]) == 57
