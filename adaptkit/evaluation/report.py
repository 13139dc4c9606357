"""A run's report: one HTML file that needs nothing else.

The page shows whatever sections the results hold; none of it knows what kind of media a model takes. How an
item looks is its modality's matter (`Modality.to_html`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.chat.boxes import Box, unpad_box
from adaptkit.errors import without_secrets
from adaptkit.evaluation.benchmark_rows import render_benchmarks
from adaptkit.evaluation.curves import stage_curves
from adaptkit.evaluation.differences import failures, how_it_was_compared, what_was_compared
from adaptkit.evaluation.pages import percent, render_page
from adaptkit.files.writing import write_text

if TYPE_CHECKING:
    from adaptkit.evaluation.scores import Answer

_NBSP = "\N{NO-BREAK SPACE}"
_NUM_PER_KIND, _NUM_GROUNDED = 2, 6


@dataclass(frozen=True)
class GalleryItem:
    """A held-out question with its medium and answers.

    Attributes:
        media: HTML that shows the medium, made by its modality.
        question: What was asked.
        expected: The right answer.
        answer: The model's.
        right: Whether that counts as right.
        kind: The question's.
        blind: The model's answer without the medium.
        iou: Of the best predicted box.
        gold_boxes: `(x1, y1, x2, y2)` as fractions of the medium.
        predicted_boxes: The same.
    """

    media: str
    question: str
    expected: str
    answer: str
    right: bool
    kind: str = ""
    blind: str | None = None
    iou: float | None = None
    gold_boxes: tuple[Box, ...] = ()
    predicted_boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    Attributes:
        title: Name of the run.
        results: As in `results.json`.
        description: What the run was for.
        metrics: Lines of `metrics.jsonl`: `stage`, `step`, `loss`, `learning_rate`, and those of validation.
        layers: The layer map: `kind` (a `LayerRecord`'s, or `replaced`), `index`, `name`, `source`.
        components: Sizes: `name`, `state`, `num_parameters`, `num_bytes`.
        gallery: Held-out items.
        command: What to type to get the same again.
        recipe: The resolved recipe, as text.
    """

    title: str
    results: Mapping[str, Any]
    description: str = ""
    metrics: Sequence[Mapping[str, Any]] = ()
    layers: Sequence[Mapping[str, Any]] = ()
    components: Sequence[Mapping[str, Any]] = ()
    gallery: Sequence[GalleryItem] = ()
    command: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class _Tile:
    """A headline number; `good` marks it as proven or as failed."""

    label: str
    value: str
    detail: str = ""
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class _Row:
    """One kind of question in the table of bars."""

    kind: str
    score: float
    marks: dict[str, float] = field(default_factory=dict)


def write_report(path: Path, data: ReportData) -> Path:
    """Write the report."""
    write_text(path, without_secrets(render_report(data)))
    return path


def render_report(data: ReportData) -> str:
    """The report as HTML; everything that a model or a user wrote is escaped."""
    return render_page(
        "report.html",
        data=data,
        tiles=_tiles(data.results),
        tables=_tables(data.results),
        text=data.results.get("text"),
        compared=what_was_compared(data.results.get("text") or {}),
        how_compared=how_it_was_compared(data.results.get("text") or {}),
        text_failures=failures(data.results.get("text") or {}, own_template=True),
        stages=stage_curves(data.metrics),
        layer_counts=Counter(layer["kind"] for layer in data.layers),
        harness=_harness(data.results),
        benchmarks=render_benchmarks(data.results),
        held_out=not any(map(is_trained_on, data.results.values())),
    )


def gallery_items(answers: Sequence[Answer], processor: Any) -> list[GalleryItem]:
    """Answers of each kind, wrong ones before right ones, since those have more to say."""
    taken: Counter[str] = Counter()
    items = []
    for answer in sorted(answers, key=lambda answer: answer.right):
        kind = answer.question.kind
        taken[kind] += 1
        if taken[kind] <= (_NUM_PER_KIND if answer.verdict is None else _NUM_GROUNDED):
            items.append(_gallery_item(answer, processor))
    return items


def _gallery_item(answer: Answer, processor: Any) -> GalleryItem:
    question = answer.question
    shown = []
    for name, source in question.media:
        modality = processor.modalities[name].modality
        shown.append(modality.to_html(modality.load(source)))
    verdict = answer.verdict
    predicted = [unpad_box(box, *question.size) for box in verdict.boxes] if verdict else []
    return GalleryItem(
        media="".join(shown),
        question=question.text,
        expected=question.expected,
        answer=answer.text,
        right=answer.right,
        kind=question.kind,
        blind=answer.blind,
        iou=max(verdict.ious, default=0.0) if verdict else None,
        gold_boxes=(_fractions(question.box, question.size),) if question.box else (),
        predicted_boxes=tuple(_fractions(box, question.size) for box in predicted),
    )


def _fractions(box: Box, size: tuple[int, int]) -> Box:
    """Pixels as fractions, cut at the edges so that a drawing stays inside."""
    x1, y1, x2, y2 = (min(max(v / side, 0.0), 1.0) for v, side in zip(box, (*size, *size)))
    return x1, y1, x2, y2


def _harness(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rules behind the scores: of the whole results, or of the first section that says."""
    sections = (scores for scores in results.values() if isinstance(scores, Mapping))
    found: Mapping[str, Any] = results.get("harness") or next((s["harness"] for s in sections if "harness" in s), {})
    return found


def _tiles(results: Mapping[str, Any]) -> list[_Tile]:
    tiles = []
    for section, scores in question_sections(results).items():
        detail = f"blind{_NBSP}{percent(scores['blind'])} · majority{_NBSP}{percent(scores['majority'])}"
        tiles.append(_Tile(title_of(section, scores), percent(scores["accuracy"]), detail, _note(scores, "accuracy")))
    for section, scores in results.items():
        name = threshold_score(scores)
        if name is not None:
            detail = f"blind {percent(scores['blind'])}" if "blind" in scores else ""
            label = f"{title_of(section, scores)}, {name.replace('acc', 'Acc')}"
            tiles.append(_Tile(label, percent(scores[name]), detail, _note(scores, name)))
    text = results.get("text")
    if text and text.get("workflow_accuracy") is not None:
        base = "not run" if text["base_accuracy"] is None else percent(text["base_accuracy"])
        label, detail = "Text, through the base", f"base alone {base}"
        tiles.append(_Tile(label, percent(text["workflow_accuracy"]), detail, _note(text, "workflow_accuracy")))
    tiles.append(_identity_tile(text or {}))
    return tiles


def _identity_tile(text: Mapping[str, Any]) -> _Tile:
    label = "Text logits, bit for bit"
    if text.get("logits_identical") is None:
        return _Tile(label, "not compared", text.get("note", "not by this evaluation"))
    same = not failures(text, own_template=True)
    detail = f"{text['num_prompts']} prompts, {text['num_positions']:,} positions"
    note = "against a process without adaptkit"
    return _Tile(label, "identical" if same else "different", detail, note, same)


def question_sections(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Sections that hold an accuracy beside its baselines."""
    return {
        name: scores
        for name, scores in results.items()
        if isinstance(scores, Mapping) and {"accuracy", "blind", "majority"} <= set(scores)
    }


def title_of(section: str, scores: Any = None) -> str:
    """A section's name as a heading, marked where its questions are not held out."""
    return section.replace("_", " ").capitalize() + (" (trained on)" if is_trained_on(scores) else "")


def is_trained_on(scores: Any) -> bool:
    """Whether a section asked about what a stage trained on."""
    return isinstance(scores, Mapping) and bool(scores.get("trained_on"))


def threshold_score(scores: Any) -> str | None:
    """The name of a section's share of hits above a threshold, `acc@0.5`, or None where it has none."""
    names = scores if isinstance(scores, Mapping) else ()
    return next((name for name in names if name.startswith("acc@")), None)


def _note(scores: Mapping[str, Any], name: str) -> str:
    n = scores.get("n")
    if not n:
        return ""
    low, high = wilson_interval(scores[name], n)
    return f"95% interval {100 * low:.1f}–{percent(high)}, {n:,}{_NBSP}questions"


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95% confidence interval of a share of `n` trials; unlike the textbook one it is right near 0 and 1."""
    z = 1.96
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def _tables(results: Mapping[str, Any]) -> list[tuple[str, list[_Row]]]:
    tables = []
    for section, scores in question_sections(results).items():
        rows = []
        for kind, score in scores.get("by_type", {}).items():
            baselines = ("blind", "majority")
            marks = {b: scores[f"{b}_by_type"][kind] for b in baselines if f"{b}_by_type" in scores}
            rows.append(_Row(kind, score, marks))
        if rows:  # a dataset of many different answers has no kinds
            tables.append((title_of(section, scores), rows))
    text = results.get("text") or {}
    if text.get("by_type"):
        base = text.get("base_by_type", {})
        rows = [_Row(k, s, {"base": base[k]} if k in base else {}) for k, s in text["by_type"].items()]
        tables.append(("Text alone", rows))
    return tables
