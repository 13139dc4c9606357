"""Scores of public benchmarks as rows of a table, in the terminal and in a run's report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.evaluation.pages import render_page
from adaptkit.files.writing import write_text

SECTION = "benchmarks"
"""Of results: the scores of the harnesses, by task."""

MAX_PARTS = 20
"""Members of a group that are shown; of more, the group alone."""

_PLACE = re.compile(r"<!-- benchmarks -->.*?<!-- /benchmarks -->", re.DOTALL)
_MORE_IS_NOT_BETTER = " ↓"


@dataclass(frozen=True)
class BenchmarkRow:
    """One metric of a benchmark.

    Attributes:
        name: Of the task or group; empty where it stands in the row above.
        metric: As the harness calls it, marked where less is better; of an official score with the rule's name.
        scores: By workflow, with the standard error where there is one.
        n: Documents.
        is_part: Whether it is of a group's member.
    """

    name: str
    metric: str
    scores: Mapping[str, str]
    n: str
    is_part: bool = False


def benchmark_rows(results: Mapping[str, Any]) -> list[BenchmarkRow]:
    """Rows of all benchmarks in results."""
    return [row for name, section in (results.get(SECTION) or {}).items() for row in _rows(name, section)]


def benchmark_workflows(results: Mapping[str, Any]) -> list[str]:
    """Workflows that have scores, the base first."""
    sections = (results.get(SECTION) or {}).values()
    names = dict.fromkeys(name for section in sections for name in section["scores"])
    return sorted(names, key=lambda name: name != "text")


def _rows(name: str, section: Mapping[str, Any]) -> Iterator[BenchmarkRow]:
    scores = section["scores"]
    limited = section["harness"].get("limit") is not None
    yield from _metric_rows(name, scores, f"{section['n']:,}" + (" (limit)" if limited else ""))
    parts = list(dict.fromkeys(part for score in scores.values() for part in score.get("tasks", {})))
    for part in parts if len(parts) <= MAX_PARTS else []:
        of_part = {
            workflow: score["tasks"][part] for workflow, score in scores.items() if part in score.get("tasks", {})
        }
        yield from _metric_rows(part, of_part, f"{next(iter(of_part.values()))['n']:,}", is_part=True)


def _metric_rows(
    name: str, scores: Mapping[str, Mapping[str, Any]], n: str, *, is_part: bool = False
) -> Iterator[BenchmarkRow]:
    metrics = list(dict.fromkeys(metric for score in scores.values() for metric in score["metrics"]))
    if not metrics:
        yield BenchmarkRow(name, "(none)", {}, n, is_part)
    for number, metric in enumerate(metrics):
        found = {workflow: _shown(score, metric) for workflow, score in scores.items() if metric in score["metrics"]}
        mark = (
            _MORE_IS_NOT_BETTER if any(metric in score.get("lower_is_better", ()) for score in scores.values()) else ""
        )
        yield BenchmarkRow("" if number else name, metric + mark, found, "" if number else n, is_part)
    yield from _official_rows(scores, is_part)


def _official_rows(scores: Mapping[str, Mapping[str, Any]], is_part: bool) -> Iterator[BenchmarkRow]:
    """Scores of the same answers by the rule of the benchmark's authors, under the rule's name."""
    official = {workflow: score["official"] for workflow, score in scores.items() if "official" in score}
    for metric in dict.fromkeys(metric for one in official.values() for metric in one["scores"]):
        found = {name: _number(one["scores"][metric]) for name, one in official.items() if metric in one["scores"]}
        yield BenchmarkRow("", f"{metric} ({next(iter(official.values()))['rule']})", found, "", is_part)


def _shown(score: Mapping[str, Any], metric: str) -> str:
    value, error = score["metrics"][metric], score["stderr"].get(metric)
    return _number(value) + (f" ± {error:.{_digits(value)}f}" if error else "")


def _number(value: float) -> str:
    return f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    return 4 if abs(value) < 10 else 2


def render_benchmarks(results: Mapping[str, Any]) -> str:
    """The section of a report, empty where there are none."""
    return render_page(
        "benchmarks.html",
        workflows=benchmark_workflows(results),
        rows=benchmark_rows(results),
        sections=results.get(SECTION) or {},
    )


def update_report(path: Path, results: Mapping[str, Any]) -> None:
    """Write a section on benchmarks into a report that is there already."""
    page = path.read_text(encoding="utf-8")
    section = f"<!-- benchmarks -->{render_benchmarks(results)}<!-- /benchmarks -->"
    if _PLACE.search(page):
        page = _PLACE.sub(lambda _: section, page)
    else:  # of an earlier version
        before, _, after = page.rpartition("</main>")
        page = f"{before}{section}</main>{after}"
    write_text(path, page)
