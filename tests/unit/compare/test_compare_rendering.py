"""The written comparison: every number of it is the data's, and nothing in it can break the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from adaptkit.compare.aggregation import Comparison, Failure, Row, Score, Table
from adaptkit.compare.measures import COST_MEASURES, TEXT_MEASURES, Measure
from adaptkit.compare.rendering import (
    format_score,
    grids,
    plots,
    render_html,
    render_markdown,
    short_grids,
    text_unchanged,
    write_comparison,
)
from adaptkit.evaluation.plots import SERIES, standalone

ACCURACY = Measure("image_questions.accuracy", "Image questions")
KIND = Measure("image_questions.by_type.color", "color", detail=True)
MEASURES = [ACCURACY, *TEXT_MEASURES, *COST_MEASURES, KIND]


def make_row(name: str, accuracy: list[float], adapted: float = 0.9, **changes: float) -> Row:
    values = {
        "text.base_accuracy": 0.99, "text.workflow_accuracy": 0.99, "text.adapted_accuracy": adapted,
        "text.answer_words.base": 20.0, "text.answer_words.adapted": 12.0, "cost.trainable_parameters": 745_000.0,
        "cost.checkpoint_bytes": 3 * 2.0**20, "cost.peak_memory_bytes": 2.0**30, "cost.training_seconds": 50.0,
        "cost.samples_per_second": 35.0, KIND.key: 0.5,
    } | changes  # fmt: skip
    scores = {key: Score(dict.fromkeys(range(len(accuracy)), value)) for key, value in values.items()}
    return Row(name, f"about {name}", f"{name}.yaml", 1920, scores | {ACCURACY.key: Score(dict(enumerate(accuracy)))})


@pytest.fixture
def comparison() -> Comparison:
    rows = [
        make_row("inner", [0.70, 0.72, 0.74]),
        make_row("full", [0.80, 0.82, 0.84], adapted=0.1, **{"cost.trainable_parameters": 1.4e6}),
        Row("broken", "cannot run", "broken.yaml", 1920, failures=[Failure(s, "no <b>disk</b>") for s in range(3)]),
    ]
    tables = [Table("Figure 1", ["full", "inner"])]
    return Comparison(
        [0, 1, 2], rows, MEASURES, tables, environment={"device": "CPU", "threads": 1}, command="adaptkit"
    )


class _Page(HTMLParser):
    """Counts what must balance, and collects references."""

    VOID = frozenset(("meta", "link", "br", "img", "wbr", "input"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("score", "unit", "expected"),
    [
        (Score({0: 0.5}), "share", "50.0"),
        (Score({0: 0.4, 1: 0.6}), "share", "50.0 ± 14.1"),
        (Score({0: 745e3, 1: 745e3}), "count", "745k"),
        (Score({0: 1.5 * 2**20}), "bytes", "1.5 MiB"),
        (Score({0: 50.4}), "seconds", "50 s"),
        (None, "share", "–"),
    ],
)
def test_scores_are_written_with_their_spread(score: Score | None, unit: str, expected: str) -> None:
    assert format_score(score, unit) == expected  # type: ignore[arg-type]


def test_every_table_is_rectangular_and_names_every_variant(comparison: Comparison) -> None:
    for grid in [*grids(comparison), *short_grids(comparison)]:
        assert {len(row) for row in grid.rows} == {len(grid.columns)}
    names = " ".join(row[0] for row in grids(comparison)[0].rows)
    assert all(name in names for name in ("inner", "full", "broken"))


def test_costs_stand_beside_scores_in_one_table(comparison: Comparison) -> None:
    titles = grids(comparison)[0].columns
    assert {m.title for m in (ACCURACY, *TEXT_MEASURES, *COST_MEASURES)} <= set(titles)
    assert KIND.title not in titles


def test_selections_keep_their_own_order(comparison: Comparison) -> None:
    selection = next(grid for grid in grids(comparison) if grid.title == "Figure 1")
    assert [row[0].partition(":")[0] for row in selection.rows] == ["full", "inner"]


def test_the_ordering_says_who_leads_and_who_is_told_apart(comparison: Comparison) -> None:
    order = next(grid for grid in grids(comparison) if grid.title.startswith("Ordering"))
    assert [row[0] for row in order.rows] == ["1. full", "2. inner"]
    assert order.rows[1][2:] == ["10.0", "yes"]


def test_a_changed_text_workflow_is_named(comparison: Comparison) -> None:
    assert text_unchanged(comparison) == []
    worse = make_row("worse", [0.5, 0.5, 0.5], **{"text.workflow_accuracy": 0.98})
    changed = Comparison(comparison.seeds, [*comparison.rows, worse], MEASURES)
    assert text_unchanged(changed) == ["worse"]
    assert "NOT" in render_markdown(changed)
    assert text_unchanged(Comparison([0], [comparison.rows[2]], [])) is None


def test_the_page_is_well_formed_self_contained_and_escaped(comparison: Comparison) -> None:
    html = render_html(comparison)
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert [reference for reference in page.references if not reference.startswith(("data:", "#"))] == []
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert "no <b>disk</b>" not in html
    assert html.count("no &lt;b&gt;disk&lt;/b&gt;") == 3
    assert html.count("<svg") == 5


def test_markdown_has_tables_plots_and_failures(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "72.0 ± 2.0" in text
    assert text.count("no &lt;b>disk&lt;/b>") == 3
    files = re.findall(r"\]\((plots/\w+\.svg)\)", text)
    assert len(files) == 5
    for plot in files:
        assert ElementTree.parse(tmp_path / plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_one_variant_that_failed_is_still_a_report() -> None:
    failed = Comparison([0], [Row("a", "", "a.yaml", None, failures=[Failure(0, "why")])], [])
    assert "why" in render_markdown(failed)
    assert "why" in render_html(failed)


def test_a_dot_per_run_and_its_spread_are_drawn(comparison: Comparison) -> None:
    chart = next(plot.chart for plot in plots(comparison) if plot.name == "scores")
    uses = ElementTree.fromstring(standalone(chart)).iter("{http://www.w3.org/2000/svg}use")
    dots = [float(use.attrib["x"]) for use in uses if SERIES[0] in use.attrib["style"]]
    seeds, means = dots[:6], dots[6:]
    assert seeds == sorted(seeds)
    assert means == pytest.approx([seeds[1], seeds[4]], abs=0.2)  # of three evenly spread runs the mean is the middle


def test_plots_are_the_same_each_time(comparison: Comparison) -> None:
    assert plots(comparison) == plots(comparison)
