"""Means, spreads and the ordering, against numbers worked out by hand and properties that must hold."""

from __future__ import annotations

import json
import math

import pytest

from adaptkit.compare.aggregation import Comparison, Failure, Row, Score, Table, merged_measures, ordering
from adaptkit.compare.measures import COST_MEASURES, TEXT_ADAPTED, Measure, read_measures
from tests.docs.ablations import read_comparison

ACCURACY = Measure("image_questions.accuracy", "Image questions")
COSTS = {measure.key.partition(".")[2]: 1.0 for measure in COST_MEASURES}


def row(name: str, *values: float) -> Row:
    return Row(name, "", f"{name}.yaml", 100).with_runs({seed: {ACCURACY: v} for seed, v in enumerate(values)})


def test_mean_and_sample_deviation() -> None:
    score = Score({0: 0.2, 1: 0.4, 2: 0.6})
    assert score.mean == pytest.approx(0.4)
    assert score.sd == pytest.approx(0.2)  # divided by two, not by three


def test_one_seed_has_no_spread() -> None:
    assert Score({0: 0.5}).sd is None


def test_a_row_takes_each_measure_over_the_seeds_that_have_it() -> None:
    other = Measure("grounding.acc@0.5", "Grounding")
    made = Row("a", "", "a.yaml", None).with_runs({1: {ACCURACY: 0.5, other: 0.1}, 0: {ACCURACY: 0.7}})
    assert made.scores[ACCURACY.key].values == {0: 0.7, 1: 0.5}
    assert made.scores[other.key].values == {1: 0.1}


def test_ordering_is_by_mean_and_differences_are_paired_by_seed() -> None:
    # Every seed puts `good` ten points ahead, though seeds differ by more than that among themselves
    rows = [row("bad", 0.1, 0.3, 0.5), row("good", 0.2, 0.4, 0.6), row("noisy", 0.6, 0.0, 0.5)]
    places = ordering(rows, ACCURACY)
    assert [place.name for place in places] == ["good", "noisy", "bad"]
    leader, noisy, bad = places
    assert (leader.behind, leader.clear) == (None, None)
    assert bad.behind == pytest.approx(0.1)
    assert bad.clear is True
    assert noisy.clear is False


def test_ordering_goes_the_other_way_where_less_is_better() -> None:
    rows = [row("dear", 3.0), row("cheap", 1.0)]
    seconds = Measure(ACCURACY.key, "Seconds", "seconds", "lower")
    assert [place.name for place in ordering(rows, seconds)] == ["cheap", "dear"]


def test_ordering_says_nothing_from_one_seed_and_leaves_out_what_did_not_finish() -> None:
    places = ordering([row("a", 0.5), row("b", 0.4), Row("failed", "", "f.yaml", None)], ACCURACY)
    assert [(place.name, place.clear) for place in places] == [("a", None), ("b", None)]
    assert ordering([], ACCURACY) == []


def test_only_shared_seeds_are_paired() -> None:
    late = Row("late", "", "", None).with_runs({7: {ACCURACY: 0.1}})
    assert ordering([row("a", 0.5, 0.6), late], ACCURACY)[1].behind is None


def test_measures_of_all_runs_keep_their_order() -> None:
    a, b, c = (Measure(name, name) for name in "abc")
    assert merged_measures([[a, c], [a, b, c]]) == [a, b, c]
    assert sorted(m.key for m in merged_measures([[b], [a], [c, a]])) == ["a", "b", "c"]


def test_json_gives_the_same_comparison_back() -> None:
    rows = [row("a", 0.1, 0.2), Row("b", "what", "b.yaml", None, failures=[Failure(0, "why")])]
    comparison = Comparison([0, 1], rows, [ACCURACY], [Table("T", ["b"])], ["note"], {"device": "CPU"}, "adaptkit")
    written = json.loads(json.dumps(comparison.to_json()))
    assert read_comparison(written) == comparison
    assert written["rows"][0]["scores"][ACCURACY.key]["mean"] == pytest.approx(0.15)
    assert comparison.failed


QUESTIONS = {"accuracy": 0.5, "blind": 0.2, "majority": 0.3, "by_type": {"color": 0.4}}


class TestReading:
    """What is read off `results.json`."""

    def keys(self, results: dict[str, object]) -> set[str]:
        return {m.key for m in read_measures(results, COSTS)} - {m.key for m in COST_MEASURES}

    def test_questions_with_baselines_and_kinds(self) -> None:
        values = {m.key: v for m, v in read_measures({"image_questions": QUESTIONS}, COSTS).items()}
        assert values["image_questions.accuracy"] == 0.5
        assert values["image_questions.by_type.color"] == 0.4
        assert self.keys({"image_questions": QUESTIONS}) == {
            "image_questions.accuracy", "image_questions.blind", "image_questions.majority",
            "image_questions.by_type.color",
        }  # fmt: skip

    @pytest.mark.parametrize("trained", [True, False])
    def test_boxes_only_of_a_workflow_of_their_own(self, trained: bool) -> None:
        workflows = {"questions": "vision", "grounding": "grounding" if trained else "vision"}
        results = {"grounding": {"acc@0.5": 0.1, "n": 5}, "harness": {"workflows": workflows}}
        assert self.keys(results) == ({"grounding.acc@0.5"} if trained else set())

    def test_text_leaves_out_what_was_not_measured(self) -> None:
        text = {"base_accuracy": None, "workflow_accuracy": 1.0, "adapted_accuracy": 0.25}
        assert self.keys({"text": text}) == {"text.workflow_accuracy", TEXT_ADAPTED}

    def test_other_benchmarks_give_their_numbers(self) -> None:
        results = {
            "mme": {"perception": 1500.0, "n": 14, "seconds": 3.0, "name": "x", "official": True},
            "seconds": 4.0,
        }
        assert self.keys(results) == {"mme.perception"}

    def test_costs_are_finite_numbers(self) -> None:
        assert all(math.isfinite(value) for value in read_measures({}, COSTS).values())
