"""Data sources, mixtures, and what turns their samples into batches.

This module is an entry point: it registers the data formats, and imports a reader when one is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adaptkit.data.llava import LlavaSource
    from adaptkit.data.table import TableSource
    from adaptkit.interfaces import DataContext, Sample


class LlavaOptions(Options):
    """Where a LLaVA or ALLaVA file is, and how it is read."""

    path: str = Field(description="The JSON file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The JSON file's folder where not given.")
    limit: int | None = Field(None, ge=1, description="Read the first so many rows only.")
    move_media_to_front: bool = Field(
        False, description="Put each turn's media before its text, as LLaVA's trainer does."
    )
    system: str | None = Field(None, description="System message put before every conversation.")


@hookimpl
def register_data_sources(register: Register) -> None:
    """The formats that adaptkit reads itself."""
    register(
        name="llava",
        build=_build_llava,
        options=LlavaOptions,
        description="LLaVA and ALLaVA JSON: a list of conversations with media by path.",
        missing=_missing_file,
        stand_in=_stand_in_llava,
    )
    register(
        name="table",
        build=_build_table,
        options=TableOptions,
        description="A table of labelled media, each row a question and an answer by template.",
        missing=_missing_file,
        stand_in=_stand_in_table,
    )
    register(
        name="pairs",
        build=_build_pairs,
        options=PairOptions,
        description="Pairs of rows of two tables, half of which agree in a column.",
        missing=_missing_pairs,
        stand_in=_stand_in_pairs,
    )


class TemplateOptions(Options):
    """What is asked about the media of a row, and answered."""

    question: str = Field(
        description="Jinja template over the row's columns, with a modality's tag where each medium stands; without "
        "any tag media stand in front."
    )
    answer: str = Field(
        description="Jinja template of the answer. `{{ bbox | padded_box(width, height) }}` writes pixels as fractions "
        "of the padded square."
    )
    system: str | None = Field(None, description="System message put before every conversation.")


class TableOptions(TemplateOptions):
    """Where a table of labelled media is, and what is asked about each row."""

    path: str = Field(description="A .jsonl, .json, .csv or .tsv file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The table's folder where not given.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column of a modality's files, where it has another name than the modality."
    )
    limit: int | None = Field(None, ge=1, description="Read the first so many rows only.")


class PairTable(Options):
    """One of two tables to pair: its file, and the folder of its media."""

    path: str
    media: str | None = None


class PairOptions(TemplateOptions):
    """Two tables of labelled media, and what is asked about a pair of rows."""

    first: PairTable = Field(description="A table, by path and media.")
    second: PairTable = Field(description="Another, or the same.")
    on: str = Field(description="The column in which half of the pairs agree.")
    num_samples: int = Field(1000, ge=1, description="Number of pairs.")
    seed: int = Field(0, ge=0, description="The same seed gives the same pairs.")


def _build_table(options: TableOptions, context: DataContext) -> TableSource:
    from adaptkit.data.table import TableSource, read_rows

    path, media = _locate(options, context)
    rows = read_rows(path, options.limit)
    return TableSource(
        rows, str(path), media=media, tags=context.tags, columns=options.columns, **_templates(options)
    )


def _build_pairs(options: PairOptions, context: DataContext) -> TableSource:
    from adaptkit.data.table import PairSource, read_rows

    places = [_locate(table, context) for table in (options.first, options.second)]
    first, second = ((read_rows(path), media) for path, media in places)
    return PairSource(
        first,
        second,
        on=options.on,
        num_samples=options.num_samples,
        seed=options.seed,
        location=" x ".join(str(path) for path, _ in places),
        tags=context.tags,
        **_templates(options),
    )


def _templates(options: TemplateOptions) -> dict[str, Any]:
    return {"question": options.question, "answer": options.answer, "system": options.system}


def _missing_pairs(options: PairOptions, context: DataContext) -> str | None:
    return _missing_file(options.first, context) or _missing_file(options.second, context)


def _stand_in_table(
    options: TableOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> TableOptions:
    from adaptkit.data.stand_in import write_table

    path = write_table(directory / "table.jsonl", samples, tags)
    templates = {"question": "{{ question }}", "answer": "{{ answer }}"}
    place = {"path": str(path), "media": str(path.parent), "columns": {}, "limit": None}
    return options.model_copy(update={**place, **templates})


def _stand_in_pairs(
    options: PairOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> PairOptions:
    from adaptkit.data.stand_in import write_table

    table = PairTable(path=str(write_table(directory / "table.jsonl", samples, tags)), media=str(directory))
    questions = "{{ first.question }} {{ second.question }}"
    update = {"first": table, "second": table, "on": "answer", "question": questions, "answer": "{{ first.answer }}"}
    return options.model_copy(update={**update, "num_samples": min(options.num_samples, len(samples))})


def _build_llava(options: LlavaOptions, context: DataContext) -> LlavaSource:
    from adaptkit.data.llava import LlavaSource

    path, media = _locate(options, context)
    return LlavaSource(
        path,
        media=media,
        tags=context.tags,
        limit=options.limit,
        move_media_to_front=options.move_media_to_front,
        system=options.system,
    )


def _missing_file(options: LlavaOptions | TableOptions | PairTable, context: DataContext) -> str | None:
    path, media = _locate(options, context)
    for what, place, found in (("data file", path, path.is_file()), ("media folder", media, media.is_dir())):
        if not found:
            return f"no {what} {place}: put it there, or set the data's path and media, or data_root"
    return None


def _stand_in_llava(
    options: LlavaOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> LlavaOptions:
    from adaptkit.data.llava import write_llava

    path = write_llava(directory / "conversations.json", samples, tags)
    return options.model_copy(update={"path": str(path), "media": str(path.parent), "limit": None})


def _locate(options: LlavaOptions | TableOptions | PairTable, context: DataContext) -> tuple[Path, Path]:
    path = context.data_root / options.path
    return path, path.parent if options.media is None else context.data_root / options.media
