"""What a run's metrics say of each stage, as plots: losses in training and on held-out rows, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from adaptkit.evaluation.plots import COLORS, Curve, Point, curves_plot, line_plot

_PARTS = (COLORS["accent"], COLORS["warm"], COLORS["violet"], COLORS["text"], COLORS["muted"])
_OVERALL = "validation/loss"

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage.

    Attributes:
        steps: Of the last line.
        last: The last loss in training.
        loss: In training, and on all rows of validation.
        parts: On each dataset and modality of validation, where there are several.
        rate: The learning rate; of each part, where they differ.
        validated: The best validation in words; empty without validation.
    """

    name: str
    steps: int
    last: float
    loss: Markup
    parts: Markup | None
    rate: Markup | None
    validated: str


def stage_curves(metrics: Lines) -> list[StageCurves]:
    """The curves of all stages, from the lines of `metrics.jsonl`."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for line in metrics:
        stages.setdefault(str(line.get("stage", "")), []).append(line)
    return [_curves(name, lines) for name, lines in stages.items() if _points(lines, "loss")]


def _curves(name: str, lines: Lines) -> StageCurves:
    trained, validated = _points(lines, "loss"), _points(lines, _OVERALL)
    best = next((line["validation/best_step"] for line in reversed(lines) if "validation/best_step" in line), None)
    parts = list(_parts(lines))
    loss = line_plot(trained, label=f"Loss of stage {name}")
    if validated:
        curves = [
            Curve("training", trained, COLORS["accent"], smooth=True),
            Curve("validation", validated, COLORS["warm"], mark=best),
        ]
        loss = curves_plot(curves, label=f"Training and validation loss of stage {name}")
    return StageCurves(
        name=name,
        steps=int(trained[-1][0]),
        last=trained[-1][1],
        loss=loss,
        parts=curves_plot(parts, label=f"Validation loss of stage {name} by dataset and modality") if parts else None,
        rate=_rate(name, lines),
        validated=_in_words(lines, best),
    )


def _points(lines: Lines, key: str) -> list[Point]:
    return [(float(line["step"]), float(line[key])) for line in lines if line.get(key) is not None]


def _parts(lines: Lines) -> Iterator[Curve]:
    """Datasets, then modalities, dashed; of either where there are several."""
    keys = dict.fromkeys(key for line in lines for key in line if key.startswith("validation/"))
    places = [key.split("/")[1:-1] for key in keys if key.endswith("/loss")]
    kinds = {kind: [place[1] for place in places if len(place) == 2 and place[0] == kind] for kind in _KINDS}
    number = 0
    for kind, names in kinds.items():
        for name in names if len(names) > 1 else ():
            points = _points(lines, f"validation/{kind}/{name}/loss")
            yield Curve(name, points, _PARTS[number % len(_PARTS)], dashed=kind == "modality")
            number += 1


_KINDS = ("data", "modality")


def _rate(name: str, lines: Lines) -> Markup | None:
    parts = dict.fromkeys(part for line in lines for part in line.get("learning_rates", ()))
    rates = {
        part: [(float(line["step"]), line["learning_rates"][part]) for line in lines if "learning_rates" in line]
        for part in parts
    }
    points = rates or {"": _points(lines, "learning_rate")}
    curves = [Curve(part, found, color) for (part, found), color in zip(points.items(), _PARTS) if found]
    return curves_plot(curves, label=f"Learning rate of stage {name}", height=110) if curves else None


def _in_words(lines: Lines, best: int | None) -> str:
    found = next((line for line in lines if _OVERALL in line and line.get("step") == best), None)
    if found is None:
        return ""
    return f"best validation {found[_OVERALL]:.3f} at step {best:,}, token accuracy " + (
        f"{found['validation/token_accuracy']:.1%}"
    )
