"""Plots as inline SVG in the colours of the page: a loss, scores of several models, and one score over another."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

COLORS = {
    "text": "#1f2328", "muted": "#636a73", "line": "#e3e0da", "track": "#efece6",
    "accent": "#2f6f9f", "accent-soft": "#a9c8de", "warm": "#d97b29", "violet": "#7c5cbf",
}  # fmt: skip
"""Those of `report.css`, in its light form; inline plots refer to them by name and so follow its dark form."""

SERIES = (COLORS["accent"], COLORS["warm"])

_WIDE = 760
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_STYLE = {
    "svg.hashsalt": "adaptkit", "svg.fonttype": "none", "text.parse_math": False, "font.size": 12,
    "text.color": COLORS["muted"], "axes.labelcolor": COLORS["muted"], "axes.edgecolor": COLORS["line"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": COLORS["line"],
    "xtick.color": COLORS["muted"], "xtick.major.size": 0, "xtick.major.pad": 6,
    "ytick.color": COLORS["muted"], "ytick.major.size": 0, "ytick.major.pad": 6,
    "lines.markersize": 8, "lines.markeredgewidth": 0, "legend.frameon": False,
}  # fmt: skip

Point = tuple[float, float]


class _Plot:
    """Axes to draw on, and then `svg`."""

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.svg = Markup()


@contextmanager
def _plot(width: int, height: int, label: str) -> Iterator[_Plot]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        plot = _Plot(figure.add_subplot())
        yield plot
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", file.getvalue().partition("<svg")[2])  # HTML needs none
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    plot.svg = Markup('<svg class="chart" role="img" aria-label="{}"').format(label) + Markup(svg)


def standalone(plot: Markup) -> str:
    """A plot as a file of its own, with its colours."""
    svg = str(plot).replace("<svg ", f'<svg {_NAMESPACES} style="background: #ffffff" ', 1)
    for name, color in COLORS.items():
        svg = svg.replace(f"var(--{name})", color)
    return svg


def line_plot(points: Sequence[Point], *, label: str) -> Markup:
    """One curve, smoothed over its raw values, as an `<svg>`.

    Args:
        points: `(x, y)` in order of x; non-finite values are skipped.
        label: What is shown, for readers that cannot see it.
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return Markup('<p class="muted">No values were logged.</p>')
    marker = "o" if len(points) == 1 else ""
    with _plot(440, 190, label) as plot:
        plot.axes.plot(*zip(*points), color=COLORS["accent-soft"], linewidth=1.2, marker=marker)
        plot.axes.plot(*zip(*smoothed(points)), color=COLORS["accent"], linewidth=2.2, marker=marker)
        plot.axes.grid(axis="x", visible=False)
        plot.axes.set_xlim(left=0)
        plot.axes.set_ylim(min(0, *(y for _, y in points)), None)
        plot.axes.locator_params(nbins=4)
    return plot.svg


@dataclass(frozen=True)
class Curve:
    """One of several curves in a plot.

    Attributes:
        name: In the legend; a plot whose only curve has none has no legend.
        points: `(x, y)` in order of x; non-finite values are skipped.
        color: Of `COLORS`.
        smooth: Whether the raw values are shown pale behind a moving average.
        dashed: Whether the line is dashed.
        mark: The x of a point to mark as the best.
    """

    name: str
    points: Sequence[Point]
    color: str
    smooth: bool = False
    dashed: bool = False
    mark: float | None = None


def curves_plot(curves: Sequence[Curve], *, label: str, height: int = 220) -> Markup:
    """Several curves over one axis, with a legend, as an `<svg>`.

    Args:
        label: What is shown, for readers that cannot see it.
    """
    with _plot(440, height, label) as plot:
        axes = plot.axes
        for curve in curves:
            _draw_curve(axes, curve)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.locator_params(nbins=4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if any(curve.name for curve in curves):
            axes.figure.legend(loc="outside upper left", ncols=4, fontsize=11, handlelength=1.4, columnspacing=1.2)
    return plot.svg


def _draw_curve(axes: Any, curve: Curve) -> None:
    points = [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return
    if curve.smooth:
        axes.plot(*zip(*points), color=COLORS["accent-soft"], linewidth=1.2)
    style: dict[str, Any] = {"linestyle": (0, (4, 2)) if curve.dashed else "-", "linewidth": 2.2}
    marker = "o" if len(points) < 40 and not curve.smooth else ""
    shown = smoothed(points) if curve.smooth else points
    axes.plot(*zip(*shown), color=curve.color, marker=marker, markersize=4, label=curve.name, **style)
    for x, y in points if curve.mark is not None else ():
        if x == curve.mark:
            ring = {"markerfacecolor": "none", "markeredgewidth": 2, "markeredgecolor": COLORS["text"]}
            axes.plot(x, y, "o", markersize=11, label="best", **ring)


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Exponential moving average over about a twentieth of the curve, without the bias of its start."""
    keep = 1 - 1 / max(1.0, len(points) / 20)
    total = weight = 0.0
    result = []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, total / weight))
    return result


@dataclass(frozen=True)
class Dot:
    """One model's score.

    Attributes:
        mean: Over its runs.
        sd: Their standard deviation; None for a single run.
        values: Of each run.
        mark: A baseline to show with it.
    """

    mean: float
    sd: float | None = None
    values: Sequence[float] = ()
    mark: float | None = None


def dot_plot(
    rows: Mapping[str, Sequence[Dot | None]], series: Sequence[str], *, label: str, write: Callable[[float], str]
) -> Markup:
    """A row for each model, and in it a dot with mean ± deviation for each series; small dots are single runs.

    Args:
        rows: A model's scores, one for each series, None where it has none; from top to bottom.
        series: Names of one or two series; a single one has no legend.
        label: What is shown, for readers that cannot see it.
        write: Turns a value into the text of a tick.
    """
    if not any(dot for row in rows.values() for dot in row):
        return Markup('<p class="muted">No run finished.</p>')
    with _plot(_WIDE, 60 + 24 * len(rows), label) as plot:
        axes = plot.axes
        for band in range(1, len(rows), 2):
            axes.axhspan(band - 0.5, band + 0.5, color=COLORS["track"], alpha=0.5, linewidth=0)
        for number, (name, color) in enumerate(zip(series, SERIES)):
            axes.plot([], [], "o", color=color, label=name)
            for place, row in enumerate(rows.values()):
                shown = [index for index, dot in enumerate(row) if dot is not None]
                if number in shown:
                    _draw_dot(axes, row[number], place + (shown.index(number) - (len(shown) - 1) / 2) * 0.36, color)
        axes.set_yticks(range(len(rows)), rows, color=COLORS["text"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda value, _: write(value))
        if len(series) > 1:
            axes.figure.legend(loc="outside upper center", ncols=len(series))
    return plot.svg


def _draw_dot(axes: Any, dot: Dot | None, y: float, color: str) -> None:
    assert dot is not None
    if dot.mark is not None:
        axes.plot(dot.mark, y, "|", color=COLORS["violet"], markersize=12, markeredgewidth=2)
    axes.plot(dot.values, [y] * len(dot.values), "o", color=color, alpha=0.45, markersize=5)
    axes.errorbar(dot.mean, y, xerr=dot.sd, fmt="o", color=color, elinewidth=2)


@dataclass(frozen=True)
class Spot:
    """One model in a plane of two scores; `key` is its label."""

    key: str
    x: Dot
    y: Dot


def scatter_plot(
    spots: Sequence[Spot],
    *,
    label: str,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    write_x: Callable[[float], str],
    write_y: Callable[[float], str],
) -> Markup:
    """One score over another, with the deviation of the vertical one.

    Args:
        label: What is shown, for readers that cannot see it.
        log_x: Whether equal steps across are equal factors.
    """
    if not spots:
        return Markup('<p class="muted">No run finished.</p>')
    with _plot(_WIDE, 430, label) as plot:
        axes = plot.axes
        for spot in spots:
            axes.errorbar(spot.x.mean, spot.y.mean, yerr=spot.y.sd, fmt="o", color=COLORS["accent"], elinewidth=2)
            place = (spot.x.mean, spot.y.mean)
            axes.annotate(spot.key, place, xytext=(6, 5), textcoords="offset points", color=COLORS["text"])
        if log_x:
            axes.set_xscale("log", subs=[])
            axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.grid(axis="x", visible=False)
        axes.set_xlabel(x_title)
        axes.set_title(y_title, loc="left", fontsize=12)
        axes.xaxis.set_major_formatter(lambda value, _: write_x(value))
        axes.yaxis.set_major_formatter(lambda value, _: write_y(value))
    return plot.svg
