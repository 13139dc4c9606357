"""Several runs of several variants as one table: mean and spread of every measure, and significant differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from adaptkit.compare.measures import Measure

# Two-sided 95% quantiles of Student's t, by degrees of freedom; 1.96 for more.
_T95 = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True)
class Score:
    """A measure over the runs of a variant.

    Attributes:
        values: By seed.
    """

    values: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the seeds; None of a single one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Failure:
    """A run that did not end well, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One variant of a comparison.

    Attributes:
        name: The recipe's.
        description: What the recipe says it is.
        recipe: Path of its file.
        num_samples: Training samples a run; None where unknown.
        scores: By key of the measure; empty where no run finished.
        failures: Runs that failed.
    """

    name: str
    description: str
    recipe: str
    num_samples: int | None
    scores: dict[str, Score] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def with_runs(self, runs: Mapping[int, Mapping[Measure, float]]) -> Row:
        """The row with the measures of its finished runs, given by seed."""
        values: dict[str, dict[int, float]] = {}
        for seed, measures in sorted(runs.items()):
            for measure, value in measures.items():
                values.setdefault(measure.key, {})[seed] = value
        return replace(self, scores={key: Score(by_seed) for key, by_seed in values.items()})


@dataclass(frozen=True)
class Table:
    """Some of a comparison's variants, shown together.

    Attributes:
        title: Above the table.
        names: Of its variants, in order.
    """

    title: str
    names: list[str]


@dataclass(frozen=True)
class Comparison:
    """All that a report on several variants shows.

    Attributes:
        seeds: Of the runs of each variant.
        rows: One a variant, in the order in which they were named.
        measures: Columns, in order; one that a variant lacks is empty there.
        tables: Selections of variants with tables of their own.
        notes: In what variants differ that should agree.
        environment: Versions, device and threads.
        command: What to type to get it again.
    """

    seeds: list[int]
    rows: list[Row]
    measures: list[Measure]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def failed(self) -> bool:
        """Whether any run failed."""
        return any(row.failures for row in self.rows)

    def row(self, name: str) -> Row:
        """The variant of that name, which must exist."""
        return next(row for row in self.rows if row.name == name)

    def measure(self, key: str) -> Measure | None:
        """The measure of that key, where a variant has it."""
        return next((measure for measure in self.measures if measure.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """As `comparison.json` has it: plain values, with `mean` and `sd` beside the values of each seed."""
        values = asdict(self)
        for row, written in zip(self.rows, values["rows"]):
            written["scores"] = {
                key: {"mean": score.mean, "sd": score.sd, "values": {str(s): v for s, v in score.values.items()}}
                for key, score in row.scores.items()
            }
        return values


def merged_measures(runs: Iterable[Iterable[Measure]]) -> list[Measure]:
    """Every measure of any run, once: in the first run's order, and later ones after what stands before them there."""
    merged: list[Measure] = []
    for run in runs:
        place = 0
        for measure in run:
            if measure in merged:
                place = merged.index(measure) + 1
            else:
                merged.insert(place, measure)
                place += 1
    return merged


@dataclass(frozen=True)
class Place:
    """A variant's place in the ordering by one measure.

    Attributes:
        name: The variant's.
        score: Its own.
        behind: Mean difference from the leader over the seeds that both finished, each seed with itself; None for
            the leader, or where they share no seed.
        clear: Whether the 95% interval of that difference leaves out zero; None where there are fewer than two seeds.
    """

    name: str
    score: Score
    behind: float | None = None
    clear: bool | None = None


def ordering(rows: Sequence[Row], measure: Measure) -> list[Place]:
    """Variants by one measure, best mean first, and whether each differs significantly from the best."""
    sign = -1 if measure.better == "lower" else 1
    ranked = sorted(
        (row for row in rows if measure.key in row.scores), key=lambda r: -sign * r.scores[measure.key].mean
    )
    if not ranked:
        return []
    best = ranked[0].scores[measure.key]
    places = [Place(ranked[0].name, best)]
    for row in ranked[1:]:
        score = row.scores[measure.key]
        differences = [best.values[seed] - value for seed, value in score.values.items() if seed in best.values]
        places.append(
            Place(row.name, score, statistics.fmean(differences) if differences else None, _clear(differences))
        )
    return places


def _clear(differences: Sequence[float]) -> bool | None:
    if len(differences) < 2:
        return None
    freedom = len(differences) - 1
    quantile = _T95[freedom] if freedom < len(_T95) else 1.96
    half = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    return abs(statistics.fmean(differences)) > half
