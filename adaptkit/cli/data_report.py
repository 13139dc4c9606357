"""How `adaptkit data check` shows what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from adaptkit.cli.terminal import Console, styled
from adaptkit.data_tools.check import KINDS, Findings, Report
from adaptkit.data_tools.check.findings import BAD

BAR_WIDTH = 36
NUM_BINS = 12
QUANTILES = (50, 95, 100)


def report_as_json(report: Report) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    in_tokens = {dataset.name: dataset.in_tokens for dataset in report.plan.datasets}
    return {
        "usable": not report.reasons,
        "reasons": report.reasons,
        "not_checked": report.unchecked,
        "notes": report.plan.notes,
        "mixtures": report.plan.mixtures,
        "datasets": {name: _dataset_as_json(found, in_tokens[name]) for name, found in report.findings.items()},
        "not_opened": [asdict(problem) for problem in report.plan.unopened],
    }


def _dataset_as_json(found: Findings, in_tokens: bool) -> dict[str, Any]:
    return {
        "samples": found.num_samples,
        "bad": found.num_bad,
        "tokens": found.num_tokens if in_tokens else None,
        "learned_tokens": found.num_labelled if in_tokens else None,
        "media": dict(found.media),
        "max_media_per_sample": found.max_media,
        "lengths": {
            "unit": "tokens" if in_tokens else "characters",
            **{f"p{q}": value for q, value in zip(QUANTILES, _quantiles(found.lengths))},
            "histogram": [list(one) for one in histogram(found.lengths)],
        },
        "problems": {
            kind: {"count": found.counts[kind], "examples": [asdict(p) for p in found.examples.get(kind, [])]}
            for kind in KINDS
            if found.counts[kind]
        },
    }


def print_report(report: Report, console: Console, num_examples: int) -> None:
    """Print datasets, lengths and problems, and the verdict where the data can be trained on."""
    for note in report.plan.notes:
        console.print(styled(note, "yellow"))
    if report.plan.unopened:
        console.print(styled("Datasets that cannot be opened", "bold red"))
        for problem in report.plan.unopened:
            console.print(Padding(styled(problem.message, overflow="fold"), (0, 0, 0, 1)))
        console.print()
    if report.findings:
        console.print(_dataset_table(report))
    for in_tokens in (True, False):
        _print_lengths(report, console, in_tokens)
    problems = [kind for kind in KINDS if report.count(kind)]
    if problems:
        console.print()
        console.print(styled("Problems", "bold"))
    for kind in problems:
        _print_problem(report, console, kind, num_examples)
    if not report.reasons:
        bad = sum(found.num_bad for found in report.findings.values())
        clean = "no problem found" if report.unchecked else "nothing is wrong"
        what = f"fit for training; {bad:,} samples would be skipped" if problems else clean
        console.print()
        console.print(f"{_checked(report)}: {what}.", style="bold green")
    if report.unchecked:
        console.print(f"Not checked: {', '.join(report.unchecked)}.", style="yellow", highlight=False)


def _checked(report: Report) -> str:
    count = sum(found.num_samples for found in report.findings.values())
    return f"{count:,} samples checked"


def _dataset_table(report: Report) -> Table:
    in_tokens = any(dataset.in_tokens for dataset in report.plan.datasets)
    table = Table(box=None, title="Datasets", title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("dataset", overflow="fold")
    columns = ["samples", "bad", *(["tokens", "learned"] if in_tokens else []), "median", "95%", "longest", "media"]
    for column in columns:
        table.add_column(column, justify="right")
    for dataset in report.plan.datasets:
        found = report.findings[dataset.name]
        tokens = [_short(found.num_tokens), _short(found.num_labelled)] if dataset.in_tokens else ["–", "–"]
        lengths = [_short(value) for value in _quantiles(found.lengths)] or ["–"] * len(QUANTILES)
        bad = styled(f"{found.num_bad:,}", "red" if found.num_bad else "")
        table.add_row(
            dataset.name, f"{found.num_samples:,}", bad, *(tokens if in_tokens else []), *lengths, _media(found)
        )
    return table


def _media(found: Findings) -> str:
    """Media of a sample, on average and at most."""
    good = len(found.lengths)
    return f"{sum(found.media.values()) / good:.2f}, ≤{found.max_media}" if good and found.media else "none"


def _short(count: int) -> str:
    """A number in few characters: 12,345 or 12.3M."""
    if count < 100_000:
        return f"{count:,}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    raise AssertionError


def _quantiles(lengths: Sequence[int]) -> list[int]:
    if not lengths:
        return []
    return [int(value) for value in np.percentile(np.array(lengths), QUANTILES, method="higher")]


def histogram(lengths: Sequence[int]) -> list[tuple[int, int | None, int]]:
    """First and last length of each bar, and its number of samples.

    Bars of one width hold the middle 98%; one before them may hold what is shorter, an open one what is longer.
    """
    if not lengths:
        return []
    values = np.array(lengths)
    low, high = (int(value) for value in np.percentile(values, (1, 99)))
    width = _round_width((high - low + 1) / NUM_BINS)
    edges = [*range(low // width * width, high + width, width)]
    bars: list[tuple[int, int | None]] = [(0, edges[0] - 1), *((edge, edge + width - 1) for edge in edges[:-1])]
    counts = [int(((first <= values) & (values <= last)).sum()) for first, last in bars]
    bars.append((edges[-1], None))
    counts.append(len(values) - sum(counts))
    found = [(first, last, count) for (first, last), count in zip(bars, counts)]
    return found[not counts[0] : len(found) - (not counts[-1])]


def _round_width(least: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is not smaller."""
    power: int = 10 ** max(0, math.floor(math.log10(least)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def _print_lengths(report: Report, console: Console, in_tokens: bool) -> None:
    datasets = [dataset for dataset in report.plan.datasets if dataset.in_tokens == in_tokens]
    lengths = [length for dataset in datasets for length in report.findings[dataset.name].lengths]
    bars = histogram(lengths)
    if not bars:
        return
    limits = sorted({dataset.max_length for dataset in datasets if dataset.max_length is not None})
    limit = f", max_length {', '.join(f'{one:,}' for one in limits)}" if limits else ""
    unit = "tokens" if in_tokens else "characters"
    table = Table(
        box=None, title=f"Lengths in {unit}{limit}", title_justify="left", title_style="bold", show_header=False
    )
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    most = max(count for _, _, count in bars)
    for first, last, count in bars:
        name = f"{first:,} and more" if last is None else f"{first:,} – {last:,}" if last > first else f"{first:,}"
        beyond = bool(limits) and first >= limits[0]
        bar = styled("█" * -(-count * BAR_WIDTH // most), "yellow" if beyond else "cyan")
        table.add_row(name, bar, f"{count:,}")
    console.print()
    console.print(table)


def _print_problem(report: Report, console: Console, kind: str, num_examples: int) -> None:
    style = "red" if kind in BAD else "yellow"
    count = report.count(kind)
    fate = " (skipped in training)" if kind in BAD and kind != "crash" else ""
    console.print(Text.assemble((f"{count:>9,}  ", style), (KINDS[kind], f"bold {style}"), (fate, "dim")))
    examples = report.examples(kind, num_examples)
    for problem in examples:
        console.print(Padding(styled(problem.message, overflow="fold"), (0, 0, 0, 11)))
    if len(examples) < count and examples:
        console.print(Padding(styled(f"and {count - len(examples):,} more", "dim"), (0, 0, 0, 11)))
