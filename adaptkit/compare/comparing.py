"""From recipes to a comparison and its files: what `adaptkit compare` does, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptkit.compare.aggregation import Comparison, Failure, Row, Table, merged_measures
from adaptkit.compare.measures import Measure, read_measures
from adaptkit.compare.rendering import write_comparison
from adaptkit.compare.running import Outcome, Watcher, only_comparison_in, plan_runs, run_all
from adaptkit.compare.variants import Variant, budget_notes, load_variants, samples_seen
from adaptkit.errors import RecipeError, unknown_name
from adaptkit.recipe import written_description


def compare(
    paths: Sequence[Path],
    output: Path,
    *,
    num_seeds: int = 1,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    tables: Sequence[str] = (),
    watcher: Watcher | None = None,
    command: str = "",
) -> Comparison:
    """Train and evaluate variants, each with the seeds 0, 1, …, and write the comparison's files.

    What the folder holds already is kept: finished runs as they are, interrupted ones are resumed, failed ones tried
    again.

    Args:
        paths: Recipe files, in the order of the table.
        output: Where runs, `comparison.json`, `comparison.md`, `comparison.html` and `plots/` go.
        num_seeds: Runs of each variant.
        overrides: `a.b.c=value` each, laid over every recipe.
        jobs: Runs at a time.
        tables: Further tables of some of the variants, `TITLE=NAME,NAME` each.
        command: What to type to get it again, for the report.

    Raises:
        RecipeError: The recipes cannot be compared, a table names none of them, or the folder holds other runs.
    """
    variants = load_variants(paths, range(num_seeds), overrides)
    selections = parse_tables(tables, [variant.name for variant in variants])
    with only_comparison_in(output):
        outcomes = run_all(plan_runs(variants, output), jobs=jobs, watcher=watcher)
        comparison = collect(variants, outcomes, selections, command)
        write_comparison(comparison, output)
    return comparison


def collect(
    variants: Sequence[Variant], outcomes: Sequence[Outcome], tables: Sequence[Table] = (), command: str = ""
) -> Comparison:
    """Put runs together."""
    rows, measures = [], []
    environments: list[dict[str, Any]] = []
    for variant in variants:
        mine = [outcome for outcome in outcomes if outcome.run.variant == variant.name]
        measured: dict[int, dict[Measure, float]] = {}
        for outcome in mine:
            if not outcome.reason:
                costs = outcome.run.measured()
                measured[outcome.run.seed] = read_measures(outcome.run.results(), costs["costs"])
                environments.append(costs["environment"])
        measures += list(measured.values())
        row = Row(
            name=variant.name,
            description=written_description(variant.recipe),
            recipe=str(variant.path),
            num_samples=samples_seen(variant.recipe),
            failures=[Failure(o.run.seed, o.reason) for o in mine if o.reason],
        )
        rows.append(row.with_runs(measured))
    notes = budget_notes(variants)
    if any(environment != environments[0] for environment in environments):
        notes.append(
            "Not all runs were measured alike (device, threads or versions differ): their times and memory cannot be "
            "compared, and a score may differ in its last digits."
        )
    return Comparison(
        seeds=list(variants[0].recipes),
        rows=rows,
        measures=merged_measures(measures),
        tables=list(tables),
        notes=notes,
        environment=environments[0] if environments else {},
        command=command,
    )


def parse_tables(texts: Sequence[str], names: Sequence[str]) -> list[Table]:
    """Read `TITLE=NAME,NAME` each.

    Raises:
        RecipeError: One is not of that form, or names a variant that is not compared.
    """
    tables = []
    for text in texts:
        title, equals, listed = text.rpartition("=")
        chosen = [name.strip() for name in listed.split(",") if name.strip()]
        if not (equals and title.strip() and chosen):
            raise RecipeError(f"--table {text!r}: give a title and names of variants, as in 'Layers=two,four'.")
        for name in chosen:
            if name not in names:
                raise RecipeError(f"--table {text!r}: {unknown_name('variant', name, names)}")
        tables.append(Table(title.strip(), chosen))
    return tables
