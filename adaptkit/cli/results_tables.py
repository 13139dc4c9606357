"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from adaptkit.cli.terminal import styled
from adaptkit.evaluation.benchmark_rows import BenchmarkRow, benchmark_rows, benchmark_workflows
from adaptkit.evaluation.boxes import IOU_THRESHOLD
from adaptkit.evaluation.differences import failures, how_it_was_compared, what_was_compared
from adaptkit.evaluation.report import is_trained_on

AddRow = Callable[..., None]
"""Takes a row's name, its cells by column, a number of questions and a style."""


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
    own = any(isinstance(scores, Mapping) and _is_own(scores) for scores in results.values())
    workflows = benchmark_workflows(results)
    beside = workflows if len(workflows) > 1 else []
    columns = [*(["score"] if own or not beside else []), *beside, *(["blind", "majority"] if own else [])]
    for column in (*columns, "questions"):
        table.add_column(column, justify="right", no_wrap=True)

    def add(name: Any, cells: Mapping[str, Any], n: str = "", style: str | None = None) -> None:
        table.add_row(name, *(cells.get(column, "") for column in columns), n, style=style)

    for section, scores in results.items():
        if isinstance(scores, Mapping) and "accuracy" in scores:
            _add_questions(table, add, section, scores)
    for section, scores in results.items():
        name = f"acc@{IOU_THRESHOLD}"
        if isinstance(scores, Mapping) and name in scores:
            cells = {"score": _bold(_percent(scores[name])), "blind": _percent(scores.get("blind"))}
            add(_bold(f"{_named(section, scores)}, {name}"), cells, str(scores.get("n", "")))
            table.add_section()
    for row in benchmark_rows(results):
        _add_benchmark(table, add, row, beside)
    if "text" in results:
        _add_text(table, add, results["text"])
    return table


def _is_own(scores: Mapping[str, Any]) -> bool:
    """Whether a section has scores of adaptkit's own benchmarks."""
    return bool({"accuracy", f"acc@{IOU_THRESHOLD}"} & set(scores)) or scores.get("workflow_accuracy") is not None


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


def _add_benchmark(table: Table, add: AddRow, row: BenchmarkRow, beside: Sequence[str]) -> None:
    """One metric: its only score, or those of several workflows."""
    if row.name and not row.is_part:
        table.add_section()
    through = f" ({', '.join(row.scores)})" if row.name and not beside and not row.is_part else ""
    label = (
        ("  " if row.is_part or not row.name else "") + (f"{row.name}{through}, " if row.name else "  ") + row.metric
    )
    cells = row.scores if beside else {"score": "".join(row.scores.values())}
    if row.name and not row.is_part:
        add(_bold(label), cells, row.n)
    else:
        add(label, cells, row.n, style="dim")


def _add_questions(table: Table, add: AddRow, section: str, scores: Mapping[str, Any]) -> None:
    baselines = ("blind", "majority")
    cells = {"score": _bold(_percent(scores["accuracy"])), **{name: _percent(scores.get(name)) for name in baselines}}
    add(_bold(_named(section, scores)), cells, str(scores.get("n", "")))
    for kind, score in scores.get("by_type", {}).items():
        found = {name: _percent(scores.get(f"{name}_by_type", {}).get(kind)) for name in baselines}
        n = str(scores.get("n_by_type", {}).get(kind, ""))
        add(f"  {kind}", {"score": _percent(score), **found}, n, style="dim")
    table.add_section()


def _add_text(table: Table, add: AddRow, text: Mapping[str, Any]) -> None:
    n = str(text.get("n", ""))
    if text.get("workflow_accuracy") is not None:
        add(_bold("text, text workflow"), {"score": _bold(_percent(text["workflow_accuracy"]))}, n)
        add("text, base in a fresh process", {"score": _percent(text["base_accuracy"])}, n)
    if text.get("adapted_accuracy") is not None:
        add("text, through the adapted decoder", {"score": _percent(text["adapted_accuracy"])}, n, style="dim")
    _add_comparison(table, add, text)
    table.caption = identity_line(text)
    table.caption_justify = "left"


def _add_comparison(table: Table, add: AddRow, text: Mapping[str, Any]) -> None:
    """What was compared with a process without adaptkit, line by line."""
    rows = what_was_compared(text)
    if not rows:
        return
    table.add_section()
    add(_bold("text workflow, and the base in a process without adaptkit"), {})
    for what, amount, same in rows:
        add(styled(f"  {what} ({amount}): {same}", "dim" if same == "identical" else "red"), {})
    if how := how_it_was_compared(text):
        add(f"  {how}", {}, style="dim")


def _bold(text: str) -> Text:
    return styled(text, "bold")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"
