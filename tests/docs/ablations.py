"""The comparison that the documentation shows: its numbers are kept as data, and the page's tables are made of them.

`python -m tests.docs.ablations FOLDER` takes over the comparison that `adaptkit compare` left in a folder.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptkit.compare.aggregation import Comparison, Failure, Row, Score, Table
from adaptkit.compare.measures import Measure
from adaptkit.compare.rendering import plots, render_markdown
from adaptkit.evaluation.plots import standalone
from tests.docs.blocks import REPOSITORY

PAGE = REPOSITORY / "docs" / "explanation" / "ablations.md"
ASSETS = REPOSITORY / "docs" / "assets" / "ablations"
DATA = ASSETS / "comparison.json"
BEGIN, END = "<!-- comparison:begin -->\n", "<!-- comparison:end -->\n"


def read_comparison(values: Mapping[str, Any]) -> Comparison:
    """Undo `Comparison.to_json`."""
    rows = [
        Row(
            **row
            | {
                "scores": {
                    key: Score({int(seed): value for seed, value in score["values"].items()})
                    for key, score in row["scores"].items()
                },
                "failures": [Failure(**failure) for failure in row["failures"]],
            }
        )
        for row in values["rows"]
    ]
    made = {"rows": rows, "measures": [Measure(**m) for m in values["measures"]]}
    return Comparison(**{**values, **made, "tables": [Table(**table) for table in values["tables"]]})


def stored() -> Comparison:
    """The comparison whose numbers the page shows."""
    return read_comparison(json.loads(DATA.read_text(encoding="utf-8")))


def block(comparison: Comparison) -> str:
    """What stands between the page's markers."""
    return render_markdown(comparison, "../assets/ablations")


def shown() -> str:
    """What stands there now."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def take_over(folder: Path) -> None:
    """Put a finished comparison into the documentation."""
    comparison = read_comparison(json.loads((folder / "comparison.json").read_text(encoding="utf-8")))
    comparison = replace(comparison, command=_without_output(comparison.command))
    ASSETS.mkdir(parents=True, exist_ok=True)
    DATA.write_text(json.dumps(comparison.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for plot in plots(comparison):
        (ASSETS / f"{plot.name}.svg").write_text(standalone(plot.chart), encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + block(comparison) + END + rest.partition(END)[2], encoding="utf-8")


def _without_output(command: str) -> str:
    """The command as a reader would type it: the folder that its author chose is nobody else's."""
    words = shlex.split(command)
    if "--output" in words:
        place = words.index("--output")
        del words[place : place + 2]
    return shlex.join(words)


if __name__ == "__main__":
    take_over(Path(sys.argv[1]))
