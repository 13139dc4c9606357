"""`adaptkit score`: official rules, applied to answers that any system wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from adaptkit.cli.output import json_option
from adaptkit.cli.terminal import Console, echo, echo_json, styled

_PER_QUESTION = {
    "items",
    "results",
    "extracted",
    "circular_hit",
    "per_question",
    "lavin_first_match_index_or_null",
}
_ONE_ROW = {"acc", "acc_plus", "score", "images", "other", "num"}
"""Where a group has only these, they share a row of the table."""


@click.command()
@click.argument("benchmark")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option("Print only JSON, with the scores of each question, too.")
def score(benchmark: str, folder: Path, as_json: bool) -> None:
    """Score answers in FOLDER by the official rules of BENCHMARK.

    FOLDER holds the benchmark's files and the answers of any system, in the layout that the benchmark's own tools
    read. Nothing is run or fetched. BENCHMARK is one of mme, mmbench (or one of its sets: mmbench_en, mmbench_cn,
    ccbench), mmmu, refcoco, scienceqa, vqa (and TextVQA), docvqa, vsr, mmlu and ceval.
    """
    from adaptkit.evaluation.official import BENCHMARKS, score_folder

    scores, notes = score_folder(benchmark, folder)
    for note in notes:
        echo(f"Note: {note}.", err=True)
    if as_json:
        echo_json(scores)
        return
    table = Table(title=f"{benchmark}: {BENCHMARKS[benchmark].rule}", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("score", justify="right")
    for depth, name, value in _table_rows(scores):
        table.add_row(styled("  " * depth + name, "" if depth else "bold"), value)
    Console().print(table)


def _table_rows(scores: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """Indentation, name and value of each score; those of single questions are omitted."""
    for name, value in scores.items():
        if name in _PER_QUESTION:
            continue
        if isinstance(value, Mapping) and not value.keys() <= _ONE_ROW:
            yield depth, name, ""
            yield from _table_rows(value, depth + 1)
        else:
            yield depth, name, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):  # an accuracy, and of how many
        return " of ".join(map(_shown, value))
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
