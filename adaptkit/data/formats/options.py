"""What recipes may say of each data format that adaptkit reads itself."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adaptkit.hookspecs import Options

_MediaRoots = Annotated[
    list[str], Field(description="Further folders below which the media of rows may lie, absolute or below data_root.")
]
_Limit = Annotated[int | None, Field(ge=1, description="Read the first so many rows only.")]
_MaxCharacters = Annotated[
    int,
    Field(
        ge=1,
        description="Characters of text beyond which a conversation is refused: each takes hundreds of bytes when it "
        "is tokenized.",
    ),
]
_MaxRow = Annotated[int, Field(ge=1, description="Megabytes of JSON beyond which a row is not read, but is bad.")]
_System = Annotated[str | None, Field(description="System message put before conversations that have none.")]
_MoveMedia = Annotated[bool, Field(description="Put each turn's media before its text, as LLaVA's trainer does.")]
_TrainOn = Annotated[
    Literal["all", "last"],
    Field(description="Which answers of a conversation are learned; the others are read as what comes before."),
]
_RepeatedTags = Annotated[
    Literal["error", "repeat", "drop"],
    Field(
        description="What further tags of a row with one medium mean: an error, the same medium again, or nothing, so "
        "that it stands at the first alone."
    ),
]


class FileOptions(Options):
    """Where a file of conversations is."""

    path: str = Field(description="The file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The file's folder where not given.")
    media_roots: _MediaRoots = Field(default_factory=list)
    limit: _Limit = None
    max_characters: _MaxCharacters = 1_000_000
    max_row_mb: _MaxRow = 64
    system: _System = None
    train_on: _TrainOn = "all"
    repeated_tags: _RepeatedTags = "error"


class LlavaOptions(FileOptions):
    """Where a LLaVA, ALLaVA or ShareGPT file is, and how it is read."""

    move_media_to_front: _MoveMedia = False


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
    max_characters: _MaxCharacters = 1_000_000
    system: str | None = Field(None, description="System message put before every conversation.")


class TableOptions(TemplateOptions):
    """Where a table of labelled media is, and what is asked about each row."""

    path: str = Field(description="A .jsonl, .json, .csv or .tsv file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The table's folder where not given.")
    media_roots: _MediaRoots = Field(default_factory=list)
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column of a modality's files, where it has another name than the modality."
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="What separates the cells of CSV and TSV files. By default a comma or a tab, as the ending says, "
        "or what separates the header's names where it has none of these.",
    )
    encoding: str | None = Field(
        None,
        description="Encoding of CSV and TSV files, such as gbk; UTF-8, or what a byte order mark says, by default.",
    )
    quotes: bool = Field(True, description="Whether cells of CSV and TSV files may stand in double quotes.")
    max_row_mb: _MaxRow = 64
    limit: _Limit = None


class PairTable(Options):
    """One of two tables to pair: its file, and the folder of its media."""

    path: str
    media: str | None = None


class PairOptions(TemplateOptions):
    """Two tables of labelled media, and what is asked about a pair of rows."""

    first: PairTable = Field(description="A table, by path and media.")
    second: PairTable = Field(description="Another, or the same.")
    media_roots: _MediaRoots = Field(default_factory=list)
    on: str = Field(description="The column in which half of the pairs agree.")
    num_samples: int = Field(1000, ge=1, description="Number of pairs.")
    seed: int = Field(0, ge=0, description="The same seed gives the same pairs.")


class RowOptions(Options):
    """Where files that may hold rows of any layout are, and how they are read."""

    path: str = Field(description="The files, absolute or below data_root.")
    layout: Literal["auto", "llava", "sharegpt", "messages", "table"] = Field(
        "auto",
        description="Layout of the rows. By default a table where a question is given, else what each row's keys tell: "
        "messages, sharegpt (it has system, media under a plural name, or turns of user or assistant), else llava.",
    )
    move_media_to_front: _MoveMedia = False
    question: str | None = Field(None, description="For a table: template of the question, as in the format table.")
    answer: str | None = Field(None, description="For a table: template of the answer.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="For a table: column of a modality's media, where it has another name than the modality.",
    )
    media: str | None = Field(None, description="Folder of media that rows name by path.")
    media_roots: _MediaRoots = Field(default_factory=list)
    limit: _Limit = None
    max_characters: _MaxCharacters = 1_000_000
    system: _System = None
    train_on: _TrainOn = "all"
    repeated_tags: _RepeatedTags = "error"

    @model_validator(mode="after")
    def _templates_together(self) -> Self:
        is_table = self.layout == "table" or (self.layout == "auto" and self.question is not None)
        if is_table and (self.question is None or self.answer is None):
            raise ValueError("the layout table needs question and answer")
        return self


class ParquetOptions(RowOptions):
    """Where parquet files are, and how their rows are read."""

    path: str = Field(
        description="A file, a folder of .parquet files, or several by `{000..012}`, `{a,b}` or `*`; absolute or below "
        "data_root."
    )
    cache_mb: int = Field(256, ge=1, description="Memory for row groups that were read last, in each process.")
    max_row_group_mb: int = Field(
        4096, ge=1, description="Memory of one row group, decoded, beyond which the file is refused."
    )


class WebDatasetOptions(RowOptions):
    """Where webdataset shards are, and how their samples are read."""

    path: str = Field(
        description="A .tar file, a folder of them, or several by `{000..012}`, `{a,b}` or `*`; absolute or below "
        "data_root."
    )
    answer: str | None = Field(
        "{{ txt }}", description="With a question: template of the answer, over the keys of KEY.json and `txt`."
    )
    endings: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Endings of members that are media of a modality, beside those whose media type begins with its "
        "name.",
    )


class HfDatasetOptions(RowOptions):
    """Which Hugging Face dataset, and how its rows are read."""

    path: str = Field(
        description="A folder that `save_to_disk` wrote, a folder of data files, a format (json, csv, parquet, arrow, "
        "text, webdataset) with data_files, or an id of the hub."
    )
    name: str | None = Field(None, description="Configuration of the dataset.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    data_files: str | list[str] | None = Field(None, description="Files of the dataset, where not all.")
    streaming: bool = Field(False, description="Read it forwards, without fetching or converting all of it first.")
    num_samples: int | None = Field(None, ge=1, description="Samples of one epoch of a stream.")

    @model_validator(mode="after")
    def _streams_have_a_size(self) -> Self:
        if self.streaming != (self.num_samples is not None):
            raise ValueError("num_samples is the size of an epoch of a stream: give it with streaming, and only then")
        return self
