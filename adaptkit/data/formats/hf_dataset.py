"""Rows of Hugging Face datasets: saved to disk, made of local files, or of the hub; whole or as a stream."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data.files import matching
from adaptkit.data.formats.arrow import Cell, to_python, with_cells
from adaptkit.data.formats.options import HfDatasetOptions
from adaptkit.data.rows import Rows
from adaptkit.data.stream import StreamRows
from adaptkit.errors import DataError
from adaptkit.files.hub import hub_refusal

LOCAL_FORMATS = ("json", "csv", "parquet", "arrow", "text", "webdataset")
"""Formats of files that `datasets` reads itself: the recipe's path, with `data_files` below the folder of the data."""

_MARKS = ("dataset_dict.json", "state.json")


class HfRows:
    """The rows of a dataset, as they are stored: nothing in them is decoded.

    Args:
        dataset: A `datasets.Dataset`.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset.with_format("arrow")
        self._names = _names_of_labels(dataset.features)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        """A row; content in it is a `Cell`.

        Raises:
            DataError: It is damaged.
        """
        return with_cells(self.raw(index), lambda path: Cell(self, index, path))

    def raw(self, index: int) -> Any:
        """A row as Arrow gives it.

        Raises:
            DataError: It is damaged.
        """
        try:
            table = self._dataset[index]
        except Exception as error:  # whatever Arrow and datasets raise on damaged files
            raise DataError(f"the row cannot be read: {_words(error)}", kind="unreadable_file") from error
        return _with_names(to_python(table, 0, validate=True), self._names)


def _names_of_labels(features: Any) -> dict[str, list[str]]:
    """Names of the classes of each column of labels."""
    found = {name: getattr(kind, "feature", kind) for name, kind in (features or {}).items()}
    return {name: list(kind.names) for name, kind in found.items() if type(kind).__name__ == "ClassLabel"}


def _with_names(row: dict[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row with names of classes for their numbers; numbers of no class, as of unknown ones, become null."""

    def name(value: Any, known: Sequence[str]) -> Any:
        if isinstance(value, list):
            return [name(one, known) for one in value]
        return known[value] if isinstance(value, int) and 0 <= value < len(known) else None

    return {**row, **{key: name(row.get(key), known) for key, known in names.items()}}


def open_rows(options: HfDatasetOptions, root: Path) -> Rows:
    """The rows that a recipe's dataset names.

    Raises:
        DataError: It cannot be opened, or has no such split.
    """
    location = f"{options.path}[{options.split}]"
    if not options.streaming:
        return HfRows(_opened(options, root))
    num_samples = options.num_samples
    assert num_samples is not None, "options are checked"
    return StreamRows(lambda: _stream(options, root, location), num_samples, location)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / mark).is_file() for mark in _MARKS)


def local_folder(options: HfDatasetOptions, root: Path) -> Path | None:
    """The folder that a dataset's path names; None where it is a format or an id of the hub."""
    folder = root / options.path
    return folder if folder.is_dir() else None


def media_folder(options: HfDatasetOptions, root: Path) -> Path:
    """The folder that media are relative to: the dataset's, or the one that all of its local files lie in."""
    folder = local_folder(options, root)
    files = [file for name in _data_files(options, root) or () for file in matching(root, name)]
    if folder is not None or options.path not in LOCAL_FORMATS or not files:
        return folder or root
    common = Path(os.path.commonpath([file.parent for file in files]))
    return files[0].parent if common == Path(common.anchor) else common  # never the whole disk


def media_roots(options: HfDatasetOptions, root: Path) -> tuple[Path, ...]:
    """Further folders of a dataset's media: for one of the hub, where its files are kept."""
    if local_folder(options, root) is not None or options.path in LOCAL_FORMATS:
        return ()
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"datasets--{options.path.replace('/', '--')}", Path(hf_cache()) / "downloads"


def missing_dataset(options: HfDatasetOptions, root: Path) -> str | None:
    """What is neither on this machine nor on the hub; None where the dataset should open."""
    if local_folder(options, root) is not None:
        return None
    if options.path in LOCAL_FORMATS:
        names = _data_files(options, root) or []
        gone = [name for name in names if not any(matching(root, name))]
        if gone or not names:
            return f"no data file {', '.join(gone) or '(data_files names none)'}: set data_files, or data_root"
        return None
    refusal = hub_refusal(options.path, options.revision, kind="dataset")
    if refusal is None or (Path(hf_cache()) / options.path.replace("/", "___")).is_dir():
        return None
    return f"{options.path!r} is no folder below {root}, and {refusal}"


def hf_cache() -> str:
    """Folder in which `datasets` keeps what it has read before."""
    from datasets import config

    return str(config.HF_DATASETS_CACHE)


def _stream(options: HfDatasetOptions, root: Path, location: str) -> Iterator[Any]:
    import datasets

    dataset = _opened(options, root)
    try:
        if not isinstance(dataset, datasets.IterableDataset):  # saved to disk
            dataset = dataset.to_iterable_dataset()
        names = _names_of_labels(dataset.features)
        tables = iter(dataset.with_format("arrow"))
    except Exception as error:  # an empty one cannot be a stream
        raise DataError(f"{location} cannot be a stream: {_words(error)}", kind="unreadable_file") from error
    while True:
        try:
            table = next(tables)
        except StopIteration:
            return
        except Exception as error:
            message = f"the stream {location} cannot be read further: {_words(error)}"
            raise DataError(message, kind="unreadable_file") from error
        for index in range(len(table)):
            try:
                yield _with_names(to_python(table, index, validate=True), names)
            except DataError as error:
                yield error  # the rows after it can be read


def _opened(options: HfDatasetOptions, root: Path) -> Any:
    import datasets

    folder = local_folder(options, root)
    try:
        if folder is not None and is_saved_dataset(folder):
            dataset = datasets.load_from_disk(str(folder))
        else:
            dataset = datasets.load_dataset(
                str(folder or options.path),
                options.name,
                split=options.split,
                revision=options.revision,
                data_files=_data_files(options, root),
                streaming=options.streaming,
            )
    except Exception as error:  # datasets raises dozens of types, from its own to those of file systems
        message = f"the dataset {options.path!r} cannot be opened: {_words(error)}"
        raise DataError(message, kind="unreadable_file") from error
    if not hasattr(dataset, "keys"):
        found = str(getattr(dataset, "split", None) or options.split)
        if "split" in options.model_fields_set and re.split(r"\W", found)[0] != re.split(r"\W", options.split)[0]:
            raise DataError(f"the dataset {options.path!r} is the split {found!r}, and has no {options.split!r}")
        return dataset
    if options.split not in dataset:
        raise DataError(f"the dataset {options.path!r} has no split {options.split!r}; it has {', '.join(dataset)}")
    return dataset[options.split]


def _data_files(options: HfDatasetOptions, root: Path) -> list[str] | None:
    """Local files by their whole path; what is not below the folder of the data may be on the hub."""
    if options.data_files is None:
        return None
    names = [options.data_files] if isinstance(options.data_files, str) else options.data_files
    is_local = options.path in LOCAL_FORMATS
    return [str(root / name) if is_local else name for name in names]


def _words(error: BaseException) -> str:
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__  # it says nothing itself
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
