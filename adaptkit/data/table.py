"""Tables of labelled media as conversations: each row fills the templates of a question and an answer."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adaptkit.boxes import format_box, pad_box
from adaptkit.data.rows import RowSource, existing_medium, media_paths, parse_json, tag_pattern
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message

Row = Mapping[str, Any]
READERS = (".jsonl", ".json", ".csv", ".tsv")


class TableSource(RowSource):
    """One conversation a row: a question about the row's media, and its answer.

    A row names its media in columns of their modalities' names, or as `columns` says, as one path or a list of paths.

    Args:
        rows: The rows.
        location: Where they come from, for messages.
        media: Folder that media paths are relative to.
        tags: Tag of each modality, `{"image": "<image>"}`.
        columns: Column of a modality's paths, where it has another name.
        question: Template of what the user says; each tag in it stands for the next of the row's media. Without any
            tag the media stand in front, one line each.
        answer: Template of what the assistant says.
        system: System message put before every conversation.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        location: str,
        *,
        media: Path,
        tags: Mapping[str, str],
        question: str,
        answer: str,
        columns: Mapping[str, str] | None = None,
        system: str | None = None,
    ) -> None:
        super().__init__(rows, location)
        self._media = media
        self._tags = dict(tags)
        self._columns = {name: (columns or {}).get(name, name) for name in tags}
        self._templates = {
            name: _compiled(name, template, location) for name, template in (("question", question), ("answer", answer))
        }
        self._system = system

    def _read(self, row: Row) -> list[Message]:
        question, answer = (_fill(name, template, row) for name, template in self._templates.items())
        if not answer.strip():
            raise DataError("the answer is empty")
        messages = [_said("user", self._parts(question, row)), _said("assistant", [_text(answer)])]
        return messages if self._system is None else [_said("system", [_text(self._system)]), *messages]

    def _parts(self, question: str, row: Row) -> list[dict[str, Any]]:
        media = {name: media_paths(row.get(c), c, self._media) for name, c in self._columns.items()}
        if not any(tag in question for tag in self._tags.values()):
            front = [f"{self._tags[name]}\n" for name, paths in media.items() for _ in paths]
            question = "".join(front) + question
        names = {tag: name for name, tag in self._tags.items()}
        pieces = [(names.get(piece), piece) for piece in tag_pattern(self._tags).split(question) if piece]
        for name, paths in media.items():
            num_tags = sum(kind == name for kind, _ in pieces)
            if num_tags != len(paths):
                raise DataError(
                    f"{len(paths)} under {name!r}, but {num_tags} {self._tags[name]} in the question: give each its tag"
                )
        remaining = {name: iter(paths) for name, paths in media.items()}
        return [
            _text(text) if kind is None else {"type": kind, kind: existing_medium(next(remaining[kind]), kind)}
            for kind, text in pieces
        ]


class PairSource(TableSource):
    """Pairs of rows of two tables, half of which agree in a column; templates see `first`, `second` and `same`.

    The media of both rows are the pair's. Equal arguments give equal pairs.

    Args:
        first: Rows of one table, and the folder that their media are relative to.
        second: The same of another.
        on: The column in which the rows of a pair agree or not.
        num_samples: Number of pairs.
        seed: Of the draw.
        location: Where the rows come from, for messages.
        options: As in `TableSource`, but for `rows` and `media`.

    Raises:
        DataError: A row lacks the column, or there are no two rows that agree, or none that differ.
    """

    def __init__(
        self,
        first: tuple[Sequence[Row], Path],
        second: tuple[Sequence[Row], Path],
        *,
        on: str,
        num_samples: int,
        seed: int = 0,
        location: str,
        **options: Any,
    ) -> None:
        tags = options["tags"]
        left, right = (_with_absolute_media(*table, tags, on) for table in (first, second))
        rows = _draw_pairs(left, right, on, num_samples, seed, tags)
        super().__init__(rows, location, media=Path(), **options)


def read_rows(path: Path, limit: int | None = None) -> list[Any]:
    """Rows of a `.jsonl`, `.json`, `.csv` or `.tsv` file, by column; cells of the last two are text.

    Raises:
        DataError: The file is missing, of another kind, malformed or empty; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the table {path}: {error}") from error
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(f"{path}: a table is one of {', '.join(READERS)}; this is {kind or 'a file without ending'}")
    rows = list(_parse(text, kind, path))[:limit]
    if not rows:
        raise DataError(f"{path}: the table has no rows")
    return rows


def _parse(text: str, kind: str, path: Path) -> Iterable[Any]:
    if kind in (".csv", ".tsv"):
        reader = csv.DictReader(text.splitlines(), delimiter="\t" if kind == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{path}:{reader.line_num}: the row has not as many cells as the header")
                yield row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from error
        return
    if kind == ".json":
        values = parse_json(text, str(path))
        if not isinstance(values, list):
            raise DataError(f"{path}: a table in JSON is a list of rows, not {type(values).__name__}")
        yield from values
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield parse_json(line, f"{path}:{number}")


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.filters["padded_box"] = _padded_box
    return environment


def _padded_box(box: Any, width: float, height: float, bins: int | None = None) -> str:
    """Pixels `[x1, y1, x2, y2]` as text in fractions of the padded square."""
    return format_box(pad_box([float(value) for value in box], float(width), float(height)), bins=bins)


def _compiled(name: str, template: str, location: str) -> Template:
    try:
        return _environment().from_string(template)
    except TemplateError as error:
        raise DataError(
            f"{location}: the template of the {name}, {template!r}, is malformed: {error}. It is Jinja: "
            "`{{ column }}`, or `{{ box | padded_box(width, height) }}`."
        ) from error


def _fill(name: str, template: Template, row: Row) -> str:
    try:
        return template.render(row)
    except UndefinedError as error:
        raise DataError(f"the template of the {name} asks for what the row lacks: {error}; it has {sorted(row)}") from (
            error
        )
    except Exception as error:  # a filter or an expression on a value of another kind than it expects
        raise DataError(f"the template of the {name} fails on this row: {type(error).__name__}: {error}") from error


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _said(role: str, content: list[dict[str, Any]]) -> Message:
    return {"role": role, "content": content}


def _with_absolute_media(rows: Sequence[Row], folder: Path, tags: Mapping[str, str], on: str) -> list[dict[str, Any]]:
    absolute = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or on not in row:
            columns = row if isinstance(row, Mapping) else ()
            raise DataError(f"row {number} of a table to pair: {unknown_name('column', on, columns)}")
        media = {name: [str(path) for path in media_paths(row.get(name), name, folder)] for name in tags}
        absolute.append({**row, **media})
    return absolute


def _draw_pairs(
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    on: str,
    num_samples: int,
    seed: int,
    tags: Mapping[str, str],
) -> list[Row]:
    import numpy as np

    rng = np.random.default_rng(seed)
    pairs: list[Row] = []
    for number in range(num_samples):
        same = number % 2 == 0
        one = first[int(rng.integers(len(first)))]
        others = [row for row in second if (row[on] == one[on]) == same]
        if not others:
            what = "agrees with" if same else "differs from"
            raise DataError(f"no row of the second table {what} {one[on]!r} in the column {on!r}")
        other = others[int(rng.integers(len(others)))]
        media = {name: one[name] + other[name] for name in tags}
        pairs.append({"id": number, "first": one, "second": other, "same": same, **media})
    return pairs
