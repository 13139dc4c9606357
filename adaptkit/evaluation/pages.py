"""Pages as single HTML files that need nothing else: one style sheet, one way to write numbers."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")


def render_page(template: str, folder: Path = TEMPLATES, **values: Any) -> str:
    """Fill a template; everything that a model or a user wrote is escaped.

    Args:
        template: File name. It may include `report.css`, which all pages share.
        folder: Where it lies.
        values: What it shows; the template also has `written`, the time.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": count, "bytes": num_bytes, "breakable": breakable}
    written = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(written=written, **values)


def breakable(text: str) -> Markup:
    """Let long lists of numbers break after commas, not within a number."""
    return Markup(",<wbr>").join(text.split(","))


def percent(value: float | None) -> str:
    """`0.5` as `50.0%`, and nothing measured as a dash."""
    return "–" if value is None else f"{100 * value:.1f}%"


def count(value: float) -> str:
    """A number of things in three digits: `1.5M`."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:g}"


def num_bytes(value: float) -> str:
    """A size: `1.5 MiB`."""
    for limit, suffix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.1f} {suffix}"
    return f"{value:g} B"
