"""What is read off a finished run: scores by their place in `results.json`, and costs as the run measured them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.evaluation.report import question_sections, threshold_score, title_of

Unit = Literal["share", "count", "bytes", "seconds", "number"]
Better = Literal["higher", "lower"] | None

TEXT_BASE = "text.base_accuracy"
TEXT_WORKFLOW = "text.workflow_accuracy"
TEXT_ADAPTED = "text.adapted_accuracy"
WORDS_BASE = "text.answer_words.base"
WORDS_ADAPTED = "text.answer_words.adapted"
PARAMETERS = "cost.trainable_parameters"
CHECKPOINT = "cost.checkpoint_bytes"
MEMORY = "cost.peak_memory_bytes"
SECONDS = "cost.training_seconds"
SPEED = "cost.samples_per_second"


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    Attributes:
        key: Its place: `section.score`, and for one kind of question `section.by_type.kind`.
        title: As the head of a column.
        unit: How it is written.
        better: Which way is better, where there is one.
        detail: Whether it belongs to a breakdown rather than to the main table.
    """

    key: str
    title: str
    unit: Unit = "share"
    better: Better = "higher"
    detail: bool = False

    @property
    def section(self) -> str:
        """The part of `results.json` it comes from."""
        return self.key.split(".")[0]


TEXT_MEASURES = (
    Measure(TEXT_BASE, "Text, base"),
    Measure(TEXT_WORKFLOW, "Text, workflow"),
    Measure(TEXT_ADAPTED, "Text, adapted decoder"),
    Measure(WORDS_BASE, "Words, base", "number", None),
    Measure(WORDS_ADAPTED, "Words, adapted decoder", "number", None),
)
COST_MEASURES = (
    Measure(PARAMETERS, "Trainable parameters", "count", "lower"),
    Measure(CHECKPOINT, "Checkpoint size", "bytes", "lower"),
    Measure(MEMORY, "Peak memory", "bytes", "lower"),
    Measure(SECONDS, "Training time", "seconds", "lower"),
    Measure(SPEED, "Samples/s", "number", "higher"),
)
_NOT_SCORES = {"n", "seconds", "training_seconds"}


def read_measures(results: Mapping[str, Any], costs: Mapping[str, float]) -> dict[Measure, float]:
    """All that a run is compared on, in the order of the table's columns.

    Args:
        results: As in `results.json`.
        costs: By the last part of a cost's key: `training_seconds`.
    """
    found = dict(_question_measures(results))
    found |= dict(_grounding(results))
    found |= dict(_other_scores(results))
    for measure in TEXT_MEASURES:
        value = _at(results, measure.key)
        if value is not None:
            found[measure] = value
    return found | {m: float(costs[m.key.partition(".")[2]]) for m in COST_MEASURES}


def _question_measures(results: Mapping[str, Any]) -> Iterator[tuple[Measure, float]]:
    for section, scores in question_sections(results).items():
        yield Measure(f"{section}.accuracy", title_of(section)), float(scores["accuracy"])
        yield Measure(f"{section}.blind", "Blind", better=None), float(scores["blind"])
        yield Measure(f"{section}.majority", "Majority", better=None, detail=True), float(scores["majority"])
        for kind, score in scores.get("by_type", {}).items():
            yield Measure(f"{section}.by_type.{kind}", kind, detail=True), float(score)


def _grounding(results: Mapping[str, Any]) -> Iterator[tuple[Measure, float]]:
    """Boxes, where a workflow was trained for them: others were asked too, and their score says nothing."""
    workflows = results.get("harness", {}).get("workflows", {})
    if workflows.get("grounding") == workflows.get("questions"):
        return
    for section, scores in results.items():
        name = threshold_score(scores)
        if name is not None:
            title = f"{title_of(section)}, {name.replace('acc', 'Acc')}"
            yield Measure(f"{section}.{name}", title), float(scores[name])


def _other_scores(results: Mapping[str, Any]) -> Iterator[tuple[Measure, float]]:
    """Numbers of benchmarks with sections of another shape."""
    known = {"text", "harness", *question_sections(results)}
    for section, scores in results.items():
        if section in known or threshold_score(scores) is not None or not isinstance(scores, Mapping):
            continue
        for name, value in scores.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NOT_SCORES:
                yield Measure(f"{section}.{name}", f"{title_of(section)}, {name}", "number", None), float(value)


def _at(results: Mapping[str, Any], key: str) -> float | None:
    value: Any = results
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
