"""What recipes may say of each data format that adaptkit reads itself."""

from __future__ import annotations

from pydantic import Field

from adaptkit.hookspecs import Options


class FileOptions(Options):
    """Where a file of conversations is."""

    path: str = Field(description="The file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The file's folder where not given.")
    limit: int | None = Field(None, ge=1, description="Read the first so many rows only.")
    system: str | None = Field(None, description="System message put before conversations that have none.")


class LlavaOptions(FileOptions):
    """Where a LLaVA, ALLaVA or ShareGPT file is, and how it is read."""

    move_media_to_front: bool = Field(
        False, description="Put each turn's media before its text, as LLaVA's trainer does."
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
