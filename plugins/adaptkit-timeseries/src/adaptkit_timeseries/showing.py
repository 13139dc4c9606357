"""A series in a report: a line for each channel, with nothing loaded from elsewhere."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from adaptkit_timeseries.series import Series

_WIDTH, _HEIGHT, _MARGIN = 320, 64, 4
_MOST_CHANNELS, _MOST_POINTS = 8, 320


def render(series: Series) -> str:
    """One chart per channel, each scaled to its own range, at most eight."""
    charts = [_chart(series.values[:, place], name) for place, name in enumerate(series.columns[:_MOST_CHANNELS])]
    left = len(series.columns) - len(charts)
    more = f"; {left} more channels are not shown" if left else ""
    caption = html.escape(f"series, {series.length:,} rows, {', '.join(series.columns[:_MOST_CHANNELS])}{more}")
    return f"<figure>{''.join(charts)}<figcaption>{caption}</figcaption></figure>"


def _chart(values: NDArray[np.float64], name: str) -> str:
    low, high = float(values.min()), float(values.max())
    kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).astype(int))
    x = _MARGIN + kept / max(len(values) - 1, 1) * (_WIDTH - 2 * _MARGIN)
    # Halves first: the range of the largest floats is infinite
    height = (values[kept] / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    y = _HEIGHT - _MARGIN - height * (_HEIGHT - 2 * _MARGIN)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    title = html.escape(f"{name}: {low:g} to {high:g}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img"><title>{title}</title>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )
