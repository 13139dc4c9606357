"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from adaptkit.cli.terminal import styled
from adaptkit.evaluation.boxes import IOU_THRESHOLD
from adaptkit.evaluation.differences import failures
from adaptkit.evaluation.report import is_trained_on


def render_results_table(results: Mapping[str, Any], *, title: str | None = None) -> Table:
    """Every score beside its baselines.

    Args:
        results: As in `results.json`; sections that a task does not have are omitted.
        title: Above the table; by default it says that the items were held out, where they were.
    """
    if title is None:
        title = "Results" if any(map(is_trained_on, results.values())) else "Results on held-out items"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("score", "blind", "majority", "questions"):
        table.add_column(column, justify="right")
    for section, scores in results.items():
        if isinstance(scores, Mapping) and "accuracy" in scores:
            _add_questions(table, section, scores)
    for section, scores in results.items():
        name = f"acc@{IOU_THRESHOLD}"
        if isinstance(scores, Mapping) and name in scores:
            table.add_row(
                _bold(f"{_named(section, scores)}, {name}"),
                _bold(_percent(scores[name])),
                _percent(scores.get("blind")),
                "",
                str(scores.get("n", "")),
            )
            table.add_section()
    if "text" in results:
        _add_text(table, results["text"])
    return table


def identity_line(text: Mapping[str, Any]) -> str:
    """One sentence on whether the text workflow is the base: logits, answers, and what decides them."""
    if text["logits_identical"] is None:
        return f"text logits not compared: {text.get('note', 'no reason given')}"
    prompts = f"{text['num_prompts']} prompts" if "num_prompts" in text else "the saved prompts"
    found = failures(text, own_template=True)
    if not found:
        more = ", and so are answers and settings" if text.get("answers_identical") else ""
        return f"text logits bit-identical to a process without adaptkit, on {prompts}{more}"
    return f"text DIFFERS from a process without adaptkit: {'; '.join(found)}"


def _named(section: str, scores: Mapping[str, Any]) -> str:
    return section.replace("_", " ") + (" (trained on)" if is_trained_on(scores) else "")


def _add_questions(table: Table, section: str, scores: Mapping[str, Any]) -> None:
    baselines = ("blind", "majority")
    cells = [_percent(scores.get(name)) for name in baselines]
    n = str(scores.get("n", ""))
    table.add_row(_bold(_named(section, scores)), _bold(_percent(scores["accuracy"])), *cells, n)
    for kind, score in scores.get("by_type", {}).items():
        cells = [_percent(scores.get(f"{name}_by_type", {}).get(kind)) for name in baselines]
        n = str(scores.get("n_by_type", {}).get(kind, ""))
        table.add_row(f"  {kind}", _percent(score), *cells, n, style="dim")
    table.add_section()


def _add_text(table: Table, text: Mapping[str, Any]) -> None:
    n = str(text.get("n", ""))
    if text.get("workflow_accuracy") is not None:
        table.add_row(_bold("text, text workflow"), _bold(_percent(text["workflow_accuracy"])), "", "", n)
        table.add_row("text, base in a fresh process", _percent(text["base_accuracy"]), "", "", n)
    if text.get("adapted_accuracy") is not None:
        table.add_row("text, through the adapted decoder", _percent(text["adapted_accuracy"]), "", "", n, style="dim")
    table.caption = identity_line(text)
    table.caption_justify = "left"


def _bold(text: str) -> Text:
    return styled(text, "bold")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
