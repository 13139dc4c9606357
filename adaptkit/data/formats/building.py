"""What builds a data source of each format, says what is missing for it, and writes a stand-in."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data.files import find_files
from adaptkit.data.formats.layouts import build_layout
from adaptkit.data.formats.options import (
    FileOptions,
    HfDatasetOptions,
    LlavaOptions,
    PairOptions,
    PairTable,
    ParquetOptions,
    RowOptions,
    TableOptions,
    WebDatasetOptions,
)
from adaptkit.data.media import Media
from adaptkit.data.rows import Layout, Rows, RowSource, load_rows
from adaptkit.errors import AdaptkitError, PluginError
from adaptkit.interfaces import DataContext, Sample

PACKAGES = {"parquet": ("pyarrow",), "hf_dataset": ("datasets", "pyarrow")}
"""What a format needs beside adaptkit's own dependencies; the extra `data` installs it."""

PARQUET_ENDINGS, SHARD_ENDINGS = (".parquet",), (".tar",)


def build(name: str, options: Any, context: DataContext) -> RowSource:
    """Open a dataset.

    Raises:
        DataError: It is missing, malformed or empty.
        PluginError: A package is missing.
    """
    lacking = _missing_package(name)
    if lacking is not None:
        raise PluginError(lacking)
    return _BUILDERS[name](options, context)


def missing(name: str, options: Any, context: DataContext) -> str | None:
    """What a build would not find on this machine; None where it has all."""
    lacking = _missing_package(name)
    if lacking is not None:
        return lacking
    if isinstance(options, HfDatasetOptions):
        from adaptkit.data.formats.hf_dataset import missing_dataset

        return missing_dataset(options, context.data_root) or _missing_folder(options, context)
    if isinstance(options, ParquetOptions | WebDatasetOptions):
        return _missing_files(options, context) or _missing_folder(options, context)
    tables = (options.first, options.second) if isinstance(options, PairOptions) else (options,)
    return next(filter(None, (_missing_file(table, context) for table in tables)), None)


def _build_conversations(layout: str) -> Callable[[Any, DataContext], RowSource]:
    def build_file(options: FileOptions, context: DataContext) -> RowSource:
        path, media = _locate(options, context)
        to_front = isinstance(options, LlavaOptions) and options.move_media_to_front
        read = build_layout(layout, context.tags, str(path), system=options.system, move_media_to_front=to_front)
        return RowSource(load_rows(path), read, Media(media), str(path), options.limit, **_limits(options, context))

    return build_file


def _build_table(options: TableOptions, context: DataContext) -> RowSource:
    from adaptkit.data.formats.table import read_rows

    path, media = _locate(options, context)
    layout = _table_layout(options, context, str(path), columns=options.columns)
    rows = read_rows(path, options.limit, quotes=options.quotes, delimiter=options.delimiter)
    return RowSource(rows, layout, Media(media), str(path), **_limits(options, context))


def _build_pairs(options: PairOptions, context: DataContext) -> RowSource:
    from adaptkit.data.formats.pairs import pair_rows
    from adaptkit.data.formats.table import read_rows

    places = [_locate(table, context) for table in (options.first, options.second)]
    first, second = ((read_rows(path), media) for path, media in places)
    rows = pair_rows(
        first, second, on=options.on, num_samples=options.num_samples, seed=options.seed, modalities=list(context.tags)
    )
    location = " x ".join(str(path) for path, _ in places)
    media = Media(places[0][1], roots=(places[1][1],))
    layout = _table_layout(options, context, location)
    return RowSource(rows, layout, media, location, **_limits(options, context))


def _table_layout(
    options: TableOptions | PairOptions, context: DataContext, location: str, columns: Mapping[str, str] | None = None
) -> Layout:
    return build_layout(
        "table",
        context.tags,
        location,
        question=options.question,
        answer=options.answer,
        system=options.system,
        columns=columns,
    )


def _build_parquet(options: ParquetOptions, context: DataContext) -> RowSource:
    from adaptkit.data.formats.parquet import ParquetRows

    paths = find_files(context.data_root, options.path, PARQUET_ENDINGS)
    rows = ParquetRows(paths, options.cache_mb * 1024**2, options.max_row_group_mb * 1024**2)
    return _container(rows, options, context, rows.media)


def _build_webdataset(options: WebDatasetOptions, context: DataContext) -> RowSource:
    from adaptkit.data.formats.webdataset import WebDatasetRows

    paths = find_files(context.data_root, options.path, SHARD_ENDINGS)
    rows = WebDatasetRows(paths, context.cache_dir, options.endings)
    return _container(rows, options, context, rows.media)


def _build_hf_dataset(options: HfDatasetOptions, context: DataContext) -> RowSource:
    from adaptkit.data.formats.hf_dataset import media_folder, media_roots, open_rows

    media = Media(media_folder(options, context.data_root), roots=media_roots(options, context.data_root))
    return _container(open_rows(options, context.data_root), options, context, media)


def _container(
    rows: Rows, options: RowOptions, context: DataContext, media: Media | Callable[[int], Media]
) -> RowSource:
    """A source of rows in any layout, whose media are where the options say, or else where `media` does."""
    layout = build_layout(
        options.layout,
        context.tags,
        options.path,
        system=options.system,
        move_media_to_front=options.move_media_to_front,
        question=options.question,
        answer=options.answer,
        columns=options.columns,
    )
    if options.media is not None:
        media = Media(context.data_root / options.media)
    return RowSource(rows, layout, media, options.path, options.limit, **_limits(options, context))


def _limits(options: FileOptions | TableOptions | PairOptions | RowOptions, context: DataContext) -> dict[str, Any]:
    """What of a row is read, as keywords of `RowSource`."""
    return {
        "context": context,
        "media_roots": _roots(options, context),
        "max_characters": options.max_characters,
    }


def _roots(options: FileOptions | TableOptions | PairOptions | RowOptions, context: DataContext) -> tuple[Path, ...]:
    """Folders below which media may lie beside the one that they are relative to.

    A dataset that says where its media are has no other but those that it names; else it is all of data_root, where a
    recipe has one.
    """
    tables = (options.first, options.second) if isinstance(options, PairOptions) else (options,)
    whole = context.data_root != Path() and any(table.media is None for table in tables)
    named = (context.data_root / Path(root).expanduser() for root in options.media_roots)
    return (*named, context.data_root) if whole else tuple(named)


_BUILDERS: dict[str, Callable[[Any, DataContext], RowSource]] = {
    "llava": _build_conversations("llava"),
    "sharegpt": _build_conversations("sharegpt"),
    "messages": _build_conversations("messages"),
    "table": _build_table,
    "pairs": _build_pairs,
    "parquet": _build_parquet,
    "webdataset": _build_webdataset,
    "hf_dataset": _build_hf_dataset,
}


def _missing_package(name: str) -> str | None:
    lacking = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if not lacking:
        return None
    return f"the data format {name!r} needs {' and '.join(lacking)}: pip install 'adaptkit[data]'"


def _missing_file(options: FileOptions | TableOptions | PairTable, context: DataContext) -> str | None:
    path, media = _locate(options, context)
    for what, place, found in (("data file", path, path.is_file()), ("media folder", media, media.is_dir())):
        if not found:
            return f"no {what} {place}: put it there, or set the data's path and media, or data_root"
    return None


def _missing_files(options: ParquetOptions | WebDatasetOptions, context: DataContext) -> str | None:
    endings = PARQUET_ENDINGS if isinstance(options, ParquetOptions) else SHARD_ENDINGS
    try:
        find_files(context.data_root, options.path, endings)
    except AdaptkitError as error:
        return str(error)
    return None


def _missing_folder(options: RowOptions, context: DataContext) -> str | None:
    if options.media is None or (context.data_root / options.media).is_dir():
        return None
    return f"no media folder {context.data_root / options.media}: put it there, or set the data's media, or data_root"


def _locate(options: FileOptions | TableOptions | PairTable, context: DataContext) -> tuple[Path, Path]:
    path = context.data_root / options.path
    return path, path.parent if options.media is None else context.data_root / options.media


# -- stand-ins -------------------------------------------------------------------------------------------------------


def stand_in(name: str, options: Any, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Any:
    """Write samples in a format, and return the options that read them."""
    from adaptkit.data.formats import stand_in as writers

    roots = writers.folders_of(samples)
    if name in ("llava", "sharegpt", "messages"):
        path = directory / ("conversations.json" if name == "llava" else "conversations.jsonl")
        writers.write_json(path, writers.rows_of(name, samples, tags))
        place = {"path": str(path), "media": str(directory), "media_roots": roots, "limit": None}
        return options.model_copy(update=place)
    if name in ("table", "pairs"):
        path = writers.write_json(directory / "table.jsonl", writers.rows_of("table", samples, tags))
        return _table_stand_in(options.model_copy(update={"media_roots": roots}), path, len(samples))
    layout = options.layout if options.layout != "auto" else "table" if options.question else "llava"
    update: dict[str, Any] = {
        "media": None,
        "media_roots": [],
        "limit": None,
        **(_OWN_TABLE if layout == "table" else {}),
    }
    if name == "webdataset":
        groups = [(f"{i:06d}", writers.group_of(layout, sample, tags)) for i, sample in enumerate(samples)]
        for i, half in enumerate((groups[::2], groups[1::2])):
            writers.write_shard(directory / f"shard-{i:06d}.tar", half)
        return options.model_copy(update={**update, "path": str(directory / "shard-{000000..000001}.tar")})
    rows = writers.rows_of(layout, samples, tags, writers.embedded)
    if name == "parquet":
        path = writers.write_parquet(directory / "rows.parquet", rows)
        return options.model_copy(update={**update, "path": str(path)})
    path = writers.write_dataset(directory / "dataset", rows)
    num_samples = None if options.num_samples is None else min(options.num_samples, len(samples))
    hub = {"name": None, "revision": None, "data_files": None}
    return options.model_copy(update={**update, **hub, "path": str(path), "num_samples": num_samples})


_OWN_TABLE: dict[str, Any] = {"columns": {}, "question": "{{ question }}", "answer": "{{ answer }}"}


def _table_stand_in(options: TableOptions | PairOptions, path: Path, num_samples: int) -> Any:
    if isinstance(options, TableOptions):
        place = {"path": str(path), "media": str(path.parent), "limit": None}
        return options.model_copy(update={**place, **_OWN_TABLE})
    table = PairTable(path=str(path), media=str(path.parent))
    questions = "{{ first.question }} {{ second.question }}"
    update = {"first": table, "second": table, "on": "answer", "question": questions, "answer": "{{ first.answer }}"}
    return options.model_copy(update={**update, "num_samples": min(options.num_samples, num_samples)})
