"""The page on ablations: its tables are the stored comparison's, and what its prose claims follows from them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from adaptkit.compare.aggregation import Comparison, ordering
from adaptkit.compare.measures import TEXT_ADAPTED, TEXT_BASE, WORDS_ADAPTED, WORDS_BASE
from adaptkit.compare.rendering import main_score, plots, text_unchanged
from adaptkit.evaluation.plots import standalone
from tests.docs.ablations import ASSETS, PAGE, block, shown, stored
from tests.docs.blocks import REPOSITORY

ACCURACY = "image_questions.accuracy"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return stored()


def mean(comparison: Comparison, name: str, key: str) -> str:
    """As the prose writes it."""
    return f"{100 * comparison.row(name).scores[key].mean:.1f}"


def test_the_tables_are_the_stored_comparison_s(comparison: Comparison) -> None:
    assert shown() == block(comparison)


def elements(svg: str) -> list[tuple[str, str | None]]:
    return [(element.tag, element.text) for element in ElementTree.fromstring(svg).iter() if "path" not in element.tag]


def test_the_plots_are_the_stored_comparison_s(comparison: Comparison) -> None:
    for plot in plots(comparison):
        path = ASSETS / f"{plot.name}.svg"
        # Other versions of matplotlib write other paths
        assert elements(path.read_text(encoding="utf-8")) == elements(standalone(plot.chart))


def test_every_shipped_ablation_ran_with_three_seeds(comparison: Comparison) -> None:
    shipped = {path.stem for path in (REPOSITORY / "recipes" / "ablations").glob("*.yaml")}
    assert {row.name for row in comparison.rows} == shipped
    assert not comparison.failed
    assert all(len(score.values) == 3 for row in comparison.rows for score in row.scores.values())


def test_text_is_unchanged_under_every_policy(comparison: Comparison) -> None:
    assert text_unchanged(comparison) == []


def test_the_unfrozen_decoder_forgets_most(comparison: Comparison) -> None:
    score = comparison.measure(TEXT_ADAPTED)
    assert score is not None
    assert ordering(comparison.rows, score)[-1].name == "full"
    full = comparison.row("full").scores
    assert all(full[TEXT_ADAPTED].values[seed] < full[TEXT_BASE].values[seed] for seed in comparison.seeds)


def test_only_one_variant_is_told_apart_from_the_first(comparison: Comparison) -> None:
    score = main_score(comparison)
    assert score is not None
    first, *others = ordering(comparison.rows, score)
    assert first.name == "inner_adapter"
    assert [place.name for place in others if place.clear] == ["gated_cross_attention"]


@pytest.mark.parametrize(
    ("better", "worse", "clear"),
    [
        *((name, "full", True) for name in ("inner_adapter", "lora", "mma")),
        ("controlnet", "full", False),
        ("gated_inner_adapter", "full", False),
        ("inner_adapter", "controlnet", True),
        ("inner_adapter", "gated_inner_adapter", False),
        ("inner_adapter", "inner_adapter_8_layers", True),
        ("inner_adapter_2_layers", "inner_adapter_8_layers", True),
    ],
)
def test_what_the_prose_tells_apart_on_text(comparison: Comparison, better: str, worse: str, clear: bool) -> None:
    score = comparison.measure(TEXT_ADAPTED)
    assert score is not None
    first, second = ordering([comparison.row(better), comparison.row(worse)], score)
    assert (first.name, second.name, second.clear) == (better, worse, clear)


def test_scores_in_the_prose_are_those_of_the_table(comparison: Comparison) -> None:
    prose = PAGE.read_text(encoding="utf-8").partition("## Every number")[0]
    named = {
        *(mean(comparison, name, TEXT_ADAPTED) for name in (
            "full", "inner_adapter", "controlnet", "gated_inner_adapter", "inner_adapter_shared_ends",
            "inner_adapter_2_layers", "inner_adapter_8_layers", "projector_only", "visual_expert",
            "gated_cross_attention",
        )),
        *(mean(comparison, name, ACCURACY) for name in (
            "inner_adapter", "without_align", "without_pretrain", "inner_adapter_2_layers", "inner_adapter_8_layers",
            "gated_cross_attention",
        )),
        mean(comparison, "inner_adapter", "image_questions.majority"),
        *(f"{comparison.row(name).scores[WORDS_ADAPTED].mean:.1f}" for name in ("gated_inner_adapter", "mma")),
        f"{comparison.row('full').scores[WORDS_BASE].mean:.1f}",
        f"{comparison.row('full').scores[WORDS_ADAPTED].sd:.1f}",
        f"{100 * (comparison.row('full').scores[TEXT_ADAPTED].sd or 0):.1f}",
    }  # fmt: skip
    assert set(re.findall(r"\b\d+\.\d\b", prose)) == named


QUOTED = {
    "`inner_adapter`, 4 layers": "inner_adapter",
    "`inner_adapter`, 2 layers": "inner_adapter_2_layers",
    "`lora`, rank 16": "lora",
    "`mma`": "mma",
    "`visual_expert`": "visual_expert",
    "`full`, as in LLaVA": "full",
}


@pytest.mark.parametrize("label", QUOTED)
def test_numbers_beside_other_methods_are_those_of_the_table(comparison: Comparison, label: str) -> None:
    page = (REPOSITORY / "docs" / "when-to-use.md").read_text(encoding="utf-8")
    scores = comparison.row(QUOTED[label]).scores

    def cell(key: str) -> str:
        sd = 100 * (scores[key].sd or 0)
        return f"{100 * scores[key].mean:.1f}" + (f" ± {sd:.1f}" if sd else "")

    text = cell(TEXT_ADAPTED) + (", by construction" if label == "`visual_expert`" else "")
    assert f"| {label} | {cell(TEXT_BASE)} | {text} | {cell(ACCURACY)} |" in page


def test_numbers_in_the_readme_are_those_of_the_table(comparison: Comparison) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in ("inner_adapter", "lora", "mma", "full"):
        score = comparison.row(name).scores[TEXT_ADAPTED]
        assert f"{100 * score.mean:.1f} ± {100 * (score.sd or 0):.1f}" in readme
