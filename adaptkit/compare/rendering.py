"""A comparison as Markdown, and as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from adaptkit.compare.aggregation import Comparison, Row, Score, Table, ordering
from adaptkit.compare.measures import (
    MEMORY,
    PARAMETERS,
    SECONDS,
    TEXT_ADAPTED,
    TEXT_BASE,
    TEXT_WORKFLOW,
    WORDS_ADAPTED,
    WORDS_BASE,
    Measure,
    Unit,
)
from adaptkit.evaluation.pages import count, num_bytes, percent, render_page
from adaptkit.evaluation.plots import Dot, Spot, dot_plot, scatter_plot, standalone
from adaptkit.evaluation.report import title_of
from adaptkit.files.writing import write_json, write_text

JSON_FILE = "comparison.json"
MARKDOWN_FILE = "comparison.md"
HTML_FILE = "comparison.html"
PLOTS_FOLDER = "plots"
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Grid:
    """A table ready to be written: headings, and cells as text; the first column is a name."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Plot:
    """A chart with its caption; `name` is its file's."""

    name: str
    caption: str
    chart: Markup


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Write `comparison.json`, `comparison.md` with its `plots/`, and `comparison.html`."""
    for plot in plots(comparison):
        write_text(output / PLOTS_FOLDER / f"{plot.name}.svg", standalone(plot.chart))
    write_text(output / MARKDOWN_FILE, render_markdown(comparison))
    write_text(output / HTML_FILE, render_html(comparison))
    write_json(output / JSON_FILE, comparison.to_json())


def render_html(comparison: Comparison) -> str:
    """The comparison as a page."""
    return render_page(
        "comparison.html",
        TEMPLATES,
        comparison=comparison,
        grids=grids(comparison),
        plots=plots(comparison),
        sentences=sentences(comparison),
        failures=_failures(comparison),
        versions=comparison.environment.get("versions", {}),
    )


def render_markdown(comparison: Comparison, plots_folder: str = PLOTS_FOLDER) -> str:
    """The comparison as Markdown.

    Args:
        plots_folder: Where the plots lie, as seen from the text.
    """
    parts = [*sentences(comparison)]
    parts += [_markdown_table(grid) for grid in grids(comparison)]
    parts += [f"![{plot.caption}]({plots_folder}/{plot.name}.svg)\n\n*{plot.caption}*" for plot in plots(comparison)]
    if comparison.failed:
        listed = [f"- {name}, seed {seed}: {_in_markdown(reason)}" for name, seed, reason in _failures(comparison)]
        parts.append("**Failed runs**\n\n" + "\n".join(listed))
    return "\n\n".join(parts) + "\n"


def sentences(comparison: Comparison) -> list[str]:
    """What a reader needs to know about the tables."""
    seeds = len(comparison.seeds)
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed, so the spread is unknown"
    device, threads = comparison.environment.get("device"), comparison.environment.get("threads")
    where = f" Measured on: {device}, {threads} thread{'s' if threads != 1 else ''} a run." if device else ""
    memory = comparison.environment.get("memory")
    memory = f" Peak memory is the {memory} until training ended." if memory else ""
    found = [f"Scores in percent; {spread}.{where}{memory}"]
    lost = text_unchanged(comparison)
    if lost is not None:
        found.append(
            "In every run the text workflow scores exactly what the base does in a process without adaptkit."
            if not lost
            else f"The text workflow does NOT score what its base does: {', '.join(lost)}."
        )
    return found + comparison.notes


def text_unchanged(comparison: Comparison) -> list[str] | None:
    """Variants whose text workflow scored otherwise than its base in some run; None where nothing was compared."""
    compared = [row for row in comparison.rows if {TEXT_BASE, TEXT_WORKFLOW} <= set(row.scores)]
    if not compared:
        return None
    return [row.name for row in compared if row.scores[TEXT_BASE].values != row.scores[TEXT_WORKFLOW].values]


# -- tables --------------------------------------------------------------------------------------------------------


def grids(comparison: Comparison) -> list[Grid]:
    """Every table: all variants, selections of them, the ordering, and scores by kind of question."""
    main = [measure for measure in comparison.measures if not measure.detail]
    tables = [_grid("All variants", comparison.rows, main, comparison, numbered=True)]
    for table in comparison.tables:
        chosen = [comparison.row(name) for name in table.names]
        tables.append(_grid(table.title, chosen, main, comparison))
    if main_score(comparison) is not None and len(comparison.rows) > 1:
        tables.append(_ordering_grid(comparison))
    for section in dict.fromkeys(measure.section for measure in comparison.measures if measure.detail):
        details = [measure for measure in comparison.measures if measure.detail and measure.section == section]
        tables.append(_grid(f"{title_of(section)} by kind", comparison.rows, details, comparison, described=False))
    return tables


def short_grids(comparison: Comparison) -> list[Grid]:
    """The tables of variants in the few columns that a terminal has room for."""
    score = main_score(comparison)
    keys = [*([] if score is None else [score.key]), TEXT_WORKFLOW, TEXT_ADAPTED, PARAMETERS, MEMORY, SECONDS]
    chosen = [measure for measure in map(comparison.measure, keys) if measure is not None]
    tables = [Table("All variants", [row.name for row in comparison.rows]), *comparison.tables]
    return [
        _grid(table.title, [comparison.row(name) for name in table.names], chosen, comparison, described=False)
        for table in tables
    ]


def main_score(comparison: Comparison) -> Measure | None:
    """The measure by which variants are put in order: the first that is better when higher."""
    return next((m for m in comparison.measures if not m.detail and m.better == "higher"), None)


def format_score(score: Score | None, unit: Unit) -> str:
    """Mean and spread; shares in percent without the sign, as their column says."""
    if score is None:
        return "–"
    mean = _written(score.mean, unit)
    return mean if not score.sd else f"{mean} ± {_written(score.sd, unit)}"


def _written(value: float, unit: Unit) -> str:
    writers: dict[Unit, Callable[[float], str]] = {
        "share": lambda v: f"{100 * v:.1f}",
        "count": count,
        "bytes": num_bytes,
        "seconds": lambda v: f"{v:.0f} s",
        "number": lambda v: f"{v:.1f}",
    }
    return writers[unit](value)


def _grid(
    title: str,
    rows: Sequence[Row],
    measures: Sequence[Measure],
    comparison: Comparison,
    *,
    numbered: bool = False,
    described: bool = True,
) -> Grid:
    columns = ["variant", *(measure.title for measure in measures)]
    written = []
    for row in rows:
        number = f"{comparison.rows.index(row) + 1}. " if numbered else ""
        note = f": {row.description}" if described and row.description else ""
        cells = [format_score(row.scores.get(measure.key), measure.unit) for measure in measures]
        written.append([f"{number}{row.name}{note}{_missing(row, comparison)}", *cells])
    return Grid(title, columns, written)


def _missing(row: Row, comparison: Comparison) -> str:
    """How many runs a row averages, where some failed."""
    done, wanted = len(comparison.seeds) - len(row.failures), len(comparison.seeds)
    return "" if done == wanted else f" ({done} of {wanted} runs)"


def _ordering_grid(comparison: Comparison) -> Grid:
    measure = main_score(comparison)
    assert measure is not None
    differs = {None: "–", True: "yes", False: "no"}
    rows = []
    for rank, place in enumerate(ordering(comparison.rows, measure), start=1):
        behind = "" if place.behind is None else _written(place.behind, measure.unit)
        clear = "" if rank == 1 else differs[place.clear]
        rows.append([f"{rank}. {place.name}", format_score(place.score, measure.unit), behind, clear])
    columns = ["variant", measure.title, "behind the first", "significant (95%)"]
    return Grid(f"Ordering by {measure.title[0].lower()}{measure.title[1:]}", columns, rows)


def _in_markdown(text: str) -> str:
    """A message on one line, with nothing in it taken for HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")


def _markdown_table(grid: Grid) -> str:
    lines = [grid.columns, ["---", *(["---:"] * (len(grid.columns) - 1))], *grid.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{grid.title}**\n\n{body}"


# -- plots ---------------------------------------------------------------------------------------------------------


def plots(comparison: Comparison) -> list[Plot]:
    """Every plot for which there are scores."""
    score = main_score(comparison)
    made = []
    if score is not None:
        blind = f"{score.section}.blind"
        rows = {row.name: [_dot(row, score.key, blind)] for row in comparison.rows}
        caption = f"{score.title}: large dots are means, small ones single runs, bars one standard deviation"
        caption += "; the upright mark is the same workflow, blind." if comparison.measure(blind) else "."
        made.append(Plot("scores", caption, dot_plot(rows, [score.title], label=caption, write=percent)))
    caption = "Text questions: sent to the text workflow, that is to the base, and through the adapted decoder."
    made += _pair(comparison, "text", (TEXT_WORKFLOW, TEXT_ADAPTED), percent, caption)
    caption = "Words of an answer to the saved text prompts: the base's, and the adapted decoder's."
    made += _pair(comparison, "words", (WORDS_BASE, WORDS_ADAPTED), lambda words: f"{words:g}", caption)
    if score is not None:
        made += _scatter(comparison, score)
    return made


def _pair(
    comparison: Comparison, name: str, keys: tuple[str, str], write: Callable[[float], str], caption: str
) -> list[Plot]:
    measures = [comparison.measure(key) for key in keys]
    titles = [measure.title for measure in measures if measure is not None]
    if len(titles) < len(keys):
        return []
    rows = {row.name: [_dot(row, key) for key in keys] for row in comparison.rows}
    return [Plot(name, caption, dot_plot(rows, titles, label=caption, write=write))]


def _scatter(comparison: Comparison, score: Measure) -> list[Plot]:
    made = []
    for name, key, log, write in (("retention", TEXT_ADAPTED, False, percent), ("parameters", PARAMETERS, True, count)):
        measure = comparison.measure(key)
        if measure is None:
            continue
        spots = [
            Spot(str(number), x, y)
            for number, row in enumerate(comparison.rows, start=1)
            if (x := _dot(row, key)) is not None and (y := _dot(row, score.key)) is not None
        ]
        caption = f"{score.title} over {measure.title[0].lower()}{measure.title[1:]}; numbers are those of the table."
        chart = scatter_plot(spots, label=caption, x_title=measure.title, y_title=score.title, log_x=log,
                              write_x=write, write_y=percent)  # fmt: skip
        made.append(Plot(name, caption, chart))
    return made


def _dot(row: Row, key: str, mark: str = "") -> Dot | None:
    score = row.scores.get(key)
    if score is None:
        return None
    baseline = row.scores.get(mark)
    return Dot(score.mean, score.sd, list(score.values.values()), baseline.mean if baseline else None)


# -- the page ------------------------------------------------------------------------------------------------------


def _failures(comparison: Comparison) -> list[tuple[str, int, str]]:
    return [(row.name, failure.seed, failure.reason) for row in comparison.rows for failure in row.failures]
