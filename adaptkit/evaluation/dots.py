"""Charts of several models' scores as inline SVG: dots with their spread, row by row, and one score over another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adaptkit.evaluation.charts import Axis, make_axis, tick_label

WIDTH = 760
_ROW, _TOP, _BOTTOM = 24, 26, 30
_LABEL_WIDTH = 250
_PLANE = 430
SERIES = ("first", "second")
"""Style classes of the series of a chart, in order."""

STANDALONE_CSS = """
svg { background: #ffffff; font-family: system-ui, sans-serif; }
text { fill: #3c4249; font-size: 12px; } .grid { stroke: #e3e0da; } .band { fill: #f5f3ef; }
.first { fill: #2f6f9f; stroke: #2f6f9f; } .second { fill: #d97b29; stroke: #d97b29; }
.spread { stroke-width: 2; } .seed { stroke: none; opacity: .45; } .mark { stroke: #7c5cbf; stroke-width: 2; }
text.first, text.second { stroke: none; } text.name { fill: #1f2328; }
"""


@dataclass(frozen=True)
class Dot:
    """One model's score.

    Attributes:
        mean: Over its runs.
        sd: Their standard deviation; None of a single run.
        values: Of each run.
        mark: A baseline to show beside it.
    """

    mean: float
    sd: float | None = None
    values: Sequence[float] = ()
    mark: float | None = None


def dot_chart(
    rows: Mapping[str, Sequence[Dot | None]],
    series: Sequence[str],
    *,
    label: str,
    write: Callable[[float], str] = tick_label,
) -> Markup:
    """A row for each model, and in it a dot with mean ± spread for each series; small dots are single runs.

    Args:
        rows: A model's scores, one a series, None where it has none; in order, from above.
        series: Names of one or two series; a single one needs no legend.
        label: What is shown, for readers that cannot see it.
        write: Turns a value into the text of a tick.
    """
    dots = [dot for row in rows.values() for dot in row if dot is not None]
    if not dots:
        return Markup('<p class="muted">No run finished.</p>')
    height = _TOP + _ROW * len(rows) + _BOTTOM
    across = make_axis([0.0, *(v for dot in dots for v in _reach(dot))], _LABEL_WIDTH, WIDTH - 24)
    parts = [_open(WIDTH, height, label), *_legend(series)]
    bottom = height - _BOTTOM + 4
    for number, name in enumerate(rows):
        top = _TOP + _ROW * number
        if number % 2:
            parts.append(Markup('<rect class="band" x="0" y="{}" width="{}" height="{}"/>').format(top, WIDTH, _ROW))
        parts.append(_text(_LABEL_WIDTH - 12, top + 16, name, "end", "name"))
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, _TOP, bottom))
        parts.append(_text(x, height - 10, write(tick), "middle"))
    for number, row in enumerate(rows.values()):
        shown = [(style, dot) for style, dot in zip(SERIES, row) if dot is not None]
        for place, (style, dot) in enumerate(shown):
            y = _TOP + _ROW * number + _ROW / 2 + (place - (len(shown) - 1) / 2) * 9
            parts += _dot(across, y, dot, style)
    return Markup("").join([*parts, Markup("</svg>")])


@dataclass(frozen=True)
class Spot:
    """One model in a plane of two scores; `key` is what stands beside it."""

    key: str
    x: Dot
    y: Dot


def scatter_chart(
    spots: Sequence[Spot],
    *,
    label: str,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    write_x: Callable[[float], str] = tick_label,
    write_y: Callable[[float], str] = tick_label,
) -> Markup:
    """One score over another, with the spread of the one that goes up.

    Args:
        spots: One a model.
        label: What is shown, for readers that cannot see it.
        x_title: Below the chart.
        y_title: Above it.
        log_x: Whether equal steps across are equal factors.
        write_x: Turns a value into the text of a tick.
        write_y: The same.
    """
    if not spots:
        return Markup('<p class="muted">No run finished.</p>')
    left, right, top, bottom = 56, 16, 30, 46
    scale = math.log10 if log_x else float
    across = _padded([scale(s.x.mean) for s in spots], left, WIDTH - right)
    up = _padded([v for s in spots for v in _reach(s.y)], _PLANE - bottom, top)
    parts = [_open(WIDTH, _PLANE, label)]
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, WIDTH - right, y, y))
        parts.append(_text(left - 8, y + 4, write_y(tick), "end"))
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(_text(x, _PLANE - bottom + 18, write_x(10**tick if log_x else tick), "middle"))
    parts.append(_text((left + WIDTH - right) / 2, _PLANE - 8, x_title, "middle"))
    parts.append(_text(8, 16, y_title, "start"))
    for spot in spots:
        x, y = across.place(scale(spot.x.mean)), up.place(spot.y.mean)
        if spot.y.sd:
            low, high = up.place(spot.y.mean - spot.y.sd), up.place(spot.y.mean + spot.y.sd)
            parts.append(Markup('<line class="first spread" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, low, high))
        parts.append(Markup('<circle class="first" cx="{}" cy="{}" r="4"/>').format(x, y))
        parts.append(_text(x + 7, y - 5, spot.key, "start", "name"))
    return Markup("").join([*parts, Markup("</svg>")])


def standalone(chart: Markup) -> str:
    """A chart as a file of its own, with its colours."""
    return (
        str(chart)
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        .replace(">", f"><style>{STANDALONE_CSS}</style>", 1)
    )


def _reach(dot: Dot) -> list[float]:
    """Every value that has to be inside."""
    spread = [dot.mean - dot.sd, dot.mean + dot.sd] if dot.sd is not None else []
    return [dot.mean, *spread, *dot.values, *([] if dot.mark is None else [dot.mark])]


def _padded(values: Sequence[float], start: float, stop: float) -> Axis:
    """An axis with some room at both ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return make_axis([low - room, high + room], start, stop)


def _dot(across: Axis, y: float, dot: Dot, style: str) -> list[Markup]:
    parts = []
    if dot.mark is not None:
        x = across.place(dot.mark)
        parts.append(Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, y - 6, y + 6))
    for value in dot.values:
        circle = Markup('<circle class="{} seed" cx="{}" cy="{}" r="2.5"/>')
        parts.append(circle.format(style, across.place(value), y))
    if dot.sd is not None:
        low, high = across.place(dot.mean - dot.sd), across.place(dot.mean + dot.sd)
        line = Markup('<line class="{} spread" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(line.format(style, low, high, y, y))
    parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(style, across.place(dot.mean), y))
    return parts


def _legend(series: Sequence[str]) -> list[Markup]:
    if len(series) < 2:
        return []
    parts = []
    for number, (style, name) in enumerate(zip(SERIES, series)):
        x = _LABEL_WIDTH + 230 * number
        parts.append(Markup('<circle class="{}" cx="{}" cy="12" r="4"/>').format(style, x))
        parts.append(_text(x + 10, 16, name, "start"))
    return parts


def _open(width: int, height: int, label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, label)


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> Markup:
    markup = Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>')
    return markup.format(round(x, 1), round(y, 1), anchor, style, text)
