"""Stock task files run on local data: where they ask `datasets` for the hub's, they are given the copies here."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError, DataError
from adaptkit.evaluation.public_data.audio import with_decoded_audio
from adaptkit.evaluation.public_data.data_folder import DataFolder, is_hub_id
from adaptkit.evaluation.public_data.stock_tasks import StockTask, find_tasks
from adaptkit.files.json_stream import Progress
from adaptkit.files.loading import cause

_KEPT = ("split", "cache_dir", "features", "keep_in_memory", "num_proc", "streaming", "download_mode")
"""Arguments of `load_dataset` that also mean something for local files."""
_active: list[DataFolder] = []


@contextmanager
def local_datasets(
    tasks: Iterable[str | StockTask], data_dir: Path | str, progress: Progress | None = None
) -> Iterator[DataFolder]:
    """Inside, any task of a harness reads local copies of the hub's datasets, and nothing is asked of the network.

    Args:
        tasks: Tasks that are to run: names of tasks, groups and tags, or what `find_tasks` found. Their data are found,
            checked and, from a released layout, converted before anything else.
        data_dir: The folder that holds the copies and releases.
        progress: Told of conversions.

    Raises:
        DataError: Data are missing or broken; the message says what to fetch, and where to put it.
    """
    folder = DataFolder(data_dir, progress)
    folder.prepare(one for task in tasks for one in ([task] if isinstance(task, StockTask) else find_tasks(task)))
    with ExitStack() as stack:
        stack.enter_context(_offline())
        stack.enter_context(_served(folder))
        try:
            yield folder
        except Exception as error:
            known = _known_cause(error)
            if known is None:
                raise
            raise known from error


@contextmanager
def _served(folder: DataFolder) -> Iterator[None]:
    """Harnesses get what is local. What they imported meanwhile goes on to work as before outside."""
    import datasets
    import huggingface_hub

    with ExitStack() as stack:
        stack.enter_context(_replaced(datasets, "load_dataset", _serving(datasets.load_dataset, _load_dataset)))
        own = huggingface_hub.snapshot_download
        stack.enter_context(_replaced(huggingface_hub, "snapshot_download", _serving(own, _snapshot)))
        _active.append(folder)
        try:
            yield
        finally:
            _active.remove(folder)


def _serving(original: Callable[..., Any], local: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def serve(*args: Any, **kwargs: Any) -> Any:
        return local(_active[-1], original, *args, **kwargs) if _active else original(*args, **kwargs)

    return serve


def _load_dataset(
    folder: DataFolder, original: Callable[..., Any], path: Any, name: str | None = None, *args: Any, **kwargs: Any
) -> Any:
    if not isinstance(path, str) or not is_hub_id(path):
        return original(path, name, *args, **kwargs)
    if args:
        raise DataError(f"load_dataset({path!r}, …): only its first two arguments may come without their names here")
    kept = {key: kwargs[key] for key in _KEPT if key in kwargs}
    if kwargs.get("data_files") is not None or kwargs.get("data_dir") is not None:
        own = {key: kwargs[key] for key in ("data_files", "data_dir") if kwargs.get(key) is not None}
        return _explained(path, original, str(_copy(folder, path)), name, **own, **kept)
    files = folder.files(path, name)
    if not all(one.suffix == ".parquet" for several in files.values() for one in several):
        return _explained(path, original, str(_copy(folder, path)), name, **kept)
    data_files = {split: [glob.escape(str(one)) for one in several] for split, several in files.items()}
    return with_decoded_audio(_explained(path, original, "parquet", data_files=data_files, **kept))


def _copy(folder: DataFolder, dataset: str) -> Path:
    found = folder.folder(dataset)
    if found is None:
        raise DataError(f"no copy of {dataset} in {folder.path}")
    return found


def _snapshot(folder: DataFolder, original: Callable[..., Any], repo_id: str, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("repo_type") != "dataset":
        return original(repo_id, *args, **kwargs)
    return str(_copy(folder, repo_id))


def _explained(dataset: str, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Load, with errors that name the dataset."""
    try:
        return load(*args, **kwargs)
    except AdaptkitError:
        raise
    except Exception as error:
        inner = error.__cause__ if error.__cause__ is not None else error
        raise DataError(f"the copy of {dataset} cannot be read: {cause(inner)}") from error


@contextmanager
def _offline() -> Iterator[None]:
    import datasets
    import huggingface_hub

    with ExitStack() as stack:
        for module in (datasets.config, huggingface_hub.constants):
            stack.enter_context(_replaced(module, "HF_HUB_OFFLINE", True))
        before = os.environ.get("HF_HUB_OFFLINE")
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            yield
        finally:
            os.environ.pop("HF_HUB_OFFLINE")
            if before is not None:
                os.environ["HF_HUB_OFFLINE"] = before


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _known_cause(error: Exception) -> AdaptkitError | None:
    """Our own error, where a harness tried several times and gave up with one of its own."""
    attempt = getattr(error, "last_attempt", None)
    inner = attempt.exception() if attempt is not None else None
    return inner if isinstance(inner, AdaptkitError) else None
