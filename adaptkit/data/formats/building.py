"""What builds a data source of each format, says what is missing for it, and writes a stand-in."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data.files import find_files
from adaptkit.data.formats.layouts import build_layout
from adaptkit.data.formats.options import (
    FileOptions,
    HfDatasetOptions,
    PairOptions,
    PairTable,
    ParquetOptions,
    RowOptions,
    TableOptions,
    WebDatasetOptions,
)
from adaptkit.data.media import Media
from adaptkit.data.row_index import file_identity, load_rows
from adaptkit.data.rows import Rows, RowSource
from adaptkit.errors import AdaptkitError, PluginError, install_command
from adaptkit.interfaces import DataContext, Sample

PACKAGES = {"hf_dataset": ("datasets",)}
"""What a format needs beside adaptkit's own dependencies; the extra `data` installs it."""

ENDINGS = {"parquet": (".parquet",), "webdataset": (".tar",)}
CONVERSATIONS = ("llava", "sharegpt", "messages")

_Opened = tuple[Rows, Media | Callable[[int], Media], str]
"""Rows, where their media are, and what to call them in messages."""


def build(name: str, options: Any, context: DataContext) -> RowSource:
    """Open a dataset.

    Raises:
        DataError: It is missing, malformed or empty.
        PluginError: A package is missing.
    """
    lacking = _missing_package(name)
    if lacking is not None:
        raise PluginError(lacking)
    layout = name if name in CONVERSATIONS else getattr(options, "layout", "table")
    rows, media, location = _OPENERS[name](options, context)
    return RowSource(
        rows,
        build_layout(layout, options, context.tags, location),
        media,
        location,
        getattr(options, "limit", None),
        context=context,
        media_roots=_roots(options, context),
        max_characters=options.max_characters,
        identity=_identity(name, options, context),
    )


def _identity(name: str, options: Any, context: DataContext) -> str | None:
    """What decides what the rows of local files say: the files, and how they are read."""
    if name == "hf_dataset":
        return None
    if name in ENDINGS:
        paths = find_files(context.data_root, options.path, ENDINGS[name])
    else:
        paths = [_locate(table, context)[0] for table in _tables(options)]
    reading = options.model_dump_json(), sorted(context.tags.items()), str(context.data_root.absolute())
    return repr((name, *reading, *map(file_identity, paths)))


def _open_conversations(options: FileOptions, context: DataContext) -> _Opened:
    path, media = _locate(options, context)
    return load_rows(path, context.cache_dir, options.max_row_mb * 1024**2), Media(media), str(path)


def _open_table(options: TableOptions, context: DataContext) -> _Opened:
    from adaptkit.data.formats.table import read_rows

    path, media = _locate(options, context)
    rows = read_rows(
        path,
        cache_dir=context.cache_dir,
        quotes=options.quotes,
        delimiter=options.delimiter,
        encoding=options.encoding,
        max_row_bytes=options.max_row_mb * 1024**2,
    )
    return rows, Media(media), str(path)


def _open_pairs(options: PairOptions, context: DataContext) -> _Opened:
    from adaptkit.data.formats.pairs import pair_rows
    from adaptkit.data.formats.table import read_rows

    places = [_locate(table, context) for table in (options.first, options.second)]
    first, second = ((read_rows(path, cache_dir=context.cache_dir), media) for path, media in places)
    rows = pair_rows(
        first, second, on=options.on, num_samples=options.num_samples, seed=options.seed, modalities=list(context.tags)
    )
    media = Media(places[0][1], roots=(places[1][1],))
    return rows, media, " x ".join(str(path) for path, _ in places)


def _open_parquet(options: ParquetOptions, context: DataContext) -> _Opened:
    from adaptkit.data.formats.parquet import ParquetRows

    paths = find_files(context.data_root, options.path, ENDINGS["parquet"])
    rows = ParquetRows(paths, options.cache_mb * 1024**2, options.max_row_group_mb * 1024**2)
    return rows, _media_folder(options, context) or rows.media, options.path


def _open_webdataset(options: WebDatasetOptions, context: DataContext) -> _Opened:
    from adaptkit.data.formats.webdataset import WebDatasetRows

    paths = find_files(context.data_root, options.path, ENDINGS["webdataset"])
    rows = WebDatasetRows(paths, context.cache_dir, options.endings)
    return rows, _media_folder(options, context) or rows.media, options.path


def _open_hf_dataset(options: HfDatasetOptions, context: DataContext) -> _Opened:
    from adaptkit.data.formats.hf_dataset import media_folder, media_roots, open_rows

    root = context.data_root
    media = _media_folder(options, context) or Media(media_folder(options, root), roots=media_roots(options, root))
    return open_rows(options, root), media, options.path


_OPENERS: dict[str, Callable[[Any, DataContext], _Opened]] = {
    **dict.fromkeys(CONVERSATIONS, _open_conversations),
    "table": _open_table,
    "pairs": _open_pairs,
    "parquet": _open_parquet,
    "webdataset": _open_webdataset,
    "hf_dataset": _open_hf_dataset,
}


def _media_folder(options: RowOptions, context: DataContext) -> Media | None:
    return None if options.media is None else Media(context.data_root / options.media)


def _roots(options: Any, context: DataContext) -> tuple[Path, ...]:
    """Folders below which media may lie beside the one that they are relative to.

    A dataset that says where its media are has no other but those that it names; else it is all of data_root, where a
    recipe has one.
    """
    whole = context.data_root != Path() and any(table.media is None for table in _tables(options))
    named = (context.data_root / Path(root).expanduser() for root in options.media_roots)
    return (*named, context.data_root) if whole else tuple(named)


def _tables(options: Any) -> tuple[Any, ...]:
    return (options.first, options.second) if isinstance(options, PairOptions) else (options,)


def _locate(options: FileOptions | TableOptions | PairTable, context: DataContext) -> tuple[Path, Path]:
    path = context.data_root / options.path
    return path, path.parent if options.media is None else context.data_root / options.media


# -- what is missing -------------------------------------------------------------------------------------------------


def missing(name: str, options: Any, context: DataContext) -> str | None:
    """What a build would not find on this machine; None where it has all."""
    return _missing_package(name) or next(_missing_files(name, options, context), None)


def _missing_package(name: str) -> str | None:
    lacking = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if not lacking:
        return None
    return f"the data format {name!r} needs {' and '.join(lacking)}: {install_command('data')}"


def _missing_files(name: str, options: Any, context: DataContext) -> Iterator[str]:
    if name in ENDINGS:
        try:
            find_files(context.data_root, options.path, ENDINGS[name])
        except AdaptkitError as error:
            yield str(error)
    elif name == "hf_dataset":
        from adaptkit.data.formats.hf_dataset import missing_dataset

        if (absent := missing_dataset(options, context.data_root)) is not None:
            yield absent
    for table in _tables(options):
        path, media = _locate(table, context)
        if not isinstance(options, RowOptions) and not path.is_file():
            yield f"no data file {path}: put it there, or set the data's path, or data_root"
        if (table.media is not None or not isinstance(options, RowOptions)) and not media.is_dir():
            yield f"no media folder {media}: put it there, or set the data's media, or data_root"


# -- stand-ins -------------------------------------------------------------------------------------------------------


def stand_in(name: str, options: Any, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Any:
    """Write samples in a format, and return the options that read them."""
    from adaptkit.data.formats import stand_in as writers

    roots = writers.folders_of(samples)
    if name in CONVERSATIONS:
        path = directory / ("conversations.json" if name == "llava" else "conversations.jsonl")
        writers.write_json(path, writers.rows_of(name, samples, tags))
        place = {"path": str(path), "media": str(directory), "media_roots": roots, "limit": None}
        return options.model_copy(update=place)
    if name in ("table", "pairs"):
        path = writers.write_json(directory / "table.jsonl", writers.rows_of("table", samples, tags))
        return _table_stand_in(options.model_copy(update={"media_roots": roots}), path, len(samples))
    layout = options.layout if options.layout != "auto" else "table" if options.question else "llava"
    update = {"media": None, "media_roots": [], "limit": None, **(_OWN_TABLE if layout == "table" else {})}
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
