"""Line charts as inline SVG, coloured by the page's own style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 26
_NUM_TICKS = 4

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear map from values to pixels, with round tick values.

    Attributes:
        low: Value at `start`.
        high: Value at `stop`.
        start: Pixel.
        stop: Pixel.
        step: Distance of the ticks.
    """

    low: float
    high: float
    start: float
    stop: float
    step: float

    def place(self, value: float) -> float:
        """Pixel of a value, to a tenth."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        first = math.ceil(self.low / self.step - 1e-9)
        count = math.floor(self.high / self.step + 1e-9) - first + 1
        return [(first + i) * self.step for i in range(count)]


def line_chart(points: Sequence[Point], *, label: str) -> Markup:
    """One curve, smoothed over its raw values, as an `<svg>`.

    Args:
        points: `(x, y)` in order of x; values that are not finite are left out.
        label: What is shown, for readers that cannot see it.
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return Markup('<p class="muted">No values were logged.</p>')
    across = make_axis([0.0, *(x for x, _ in points)], _LEFT, WIDTH - _RIGHT)
    up = make_axis([0.0, *(y for _, y in points)], HEIGHT - _BOTTOM, _TOP)
    raw = [(across.place(x), up.place(y)) for x, y in points]
    smooth = [(across.place(x), up.place(y)) for x, y in smoothed(points)]
    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)]
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, WIDTH - _RIGHT, y, y))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 8, y + 4, tick_label(tick))
        )
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x, HEIGHT - 6, tick_label(tick))
        )
    parts += [_polyline("raw", raw), _polyline("smooth", smooth), Markup("</svg>")]
    return Markup("").join(parts)


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Exponential moving average over about a twentieth of the curve, without the bias of its start."""
    keep = 1 - 1 / max(1.0, len(points) / 20)
    total = weight = 0.0
    result = []
    for x, y in points:
        total, weight = keep * total + (1 - keep) * y, keep * weight + (1 - keep)
        result.append((x, total / weight))
    return result


def make_axis(values: Sequence[float], start: float, stop: float) -> Axis:
    """An axis over all the values, from one pixel to another."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / _NUM_TICKS)
    return Axis(low, high, start, stop, step)


def _round_step(raw: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)


def tick_label(value: float) -> str:
    """A tick's value in a few characters."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def _polyline(name: str, points: Sequence[Point]) -> Markup:
    if len(points) == 1:
        (x, y) = points[0]
        return Markup('<circle class="{} dot" cx="{}" cy="{}" r="3"/>').format(name, x, y)
    path = " ".join(f"{x},{y}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(name, escape(path))
