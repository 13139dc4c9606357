"""Copies of the hub's datasets below the data folder: which files hold a split of a configuration."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from adaptkit.errors import DataError, first_few
from adaptkit.files.loading import reading
from adaptkit.files.text import no_text

_MIRRORS = re.compile(r"^lmms-lab-\w+/")
"""Organisations under which lmms-eval lists datasets that are lmms-lab's."""
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d{5}-of-\d{5})?(?:-[0-9a-f]{16})?\.parquet")
_NUMBERED = re.compile(r"(?:train|part)?[-_]?\d+\.parquet")
_DATA_ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".arrow")
_HEAD_BYTES = 64


def names_of(dataset: str) -> list[str]:
    """Ids under which the hub has a dataset that a task file names."""
    return list(dict.fromkeys([dataset, _MIRRORS.sub("lmms-lab/", dataset)]))


def find_folder(data_dir: Path, dataset: str) -> Path | None:
    """The copy of a hub dataset: a folder named like its id, or one in the layout of the hub's cache."""
    named = [folder for name in names_of(dataset) for folder in _copies(data_dir, name) if _has_data(folder, 2)]
    short = data_dir / dataset.rpartition("/")[2]
    return next(iter(named), short if _has_data(short, 1) else None)


def find_copies(data_dir: Path) -> set[str]:
    """Ids of the hub's datasets of which the data folder seems to have copies."""
    entries = [path for path in data_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    cached = {path.name for place in (data_dir, data_dir / "hub") for path in place.glob("datasets--*--*")}
    found = {name.removeprefix("datasets--").replace("--", "/", 1) for name in cached}
    found |= {path.name.replace("--", "/", 1) for path in entries if "--" in path.name}
    return found | {f"{path.name}/{inner.name}" for path in entries for inner in path.iterdir() if inner.is_dir()}


def split_files(folder: Path, config: str | None) -> dict[str, list[Path]]:
    """The files of each split of a configuration, as the dataset's card lists them, or as their names say.

    Splits of which nothing was fetched are omitted; of a copy with several configurations, of which none is named,
    there are none.

    Raises:
        DataError: The copy has no such configuration.
    """
    configs = _configs(folder)
    name = config or _default(configs)
    if configs and name is None:
        return {}
    if name is not None and name in configs:
        listed = {split: _matching(folder, patterns) for split, patterns in configs[name].items()}
        return {split: files for split, files in listed.items() if files}
    inner = folder / config if config else folder
    if config and not inner.is_dir():
        known = first_few(sorted(configs or (entry.name for entry in folder.iterdir() if entry.is_dir())), 20)
        raise DataError(f"{folder} has no configuration {config!r}; there is {known or 'none'}")
    return _by_name(inner)


def check_files(files: Sequence[Path]) -> None:
    """Raise `DataError` where a file of a copy is damaged, or not the file itself."""
    for path in files:
        with reading(path, DataError, "Fetch it again."):
            with path.open("rb") as file:
                beginning = file.read(_HEAD_BYTES)
            other = no_text(beginning)
            if other is not None and not beginning.startswith(b"PAR1"):
                raise DataError(f"{path} is {other}")
            if path.suffix == ".parquet":
                _check_parquet(path)


def _check_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        parquet.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged or cut short ({error}). Fetch it again.") from error


def _copies(data_dir: Path, name: str) -> Iterator[Path]:
    organisation, _, short = name.rpartition("/")
    yield data_dir / name
    for cache in (data_dir, data_dir / "hub"):
        yield from _snapshots(cache / f"datasets--{name.replace('/', '--')}")
    yield data_dir / f"{organisation}--{short}"


def _snapshots(repository: Path) -> list[Path]:
    """Snapshots of a repository in the hub's cache, that of the branch `main` first, then the newest."""
    snapshots = repository / "snapshots"
    if not snapshots.is_dir():
        return []
    main = repository / "refs" / "main"
    wanted = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    return sorted(snapshots.iterdir(), key=lambda path: (path.name == wanted, path.stat().st_mtime), reverse=True)


def _has_data(folder: Path, depth: int) -> bool:
    """Whether a folder is a copy of a hub dataset, with parquet so deep, which official releases have not."""
    if not folder.is_dir():
        return False
    if (folder / "README.md").is_file() and _configs(folder):
        return True
    return any(next(folder.glob(f"{'*/' * level}*.parquet"), None) is not None for level in range(depth + 1))


def _configs(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Patterns of each split's files by configuration, from the dataset's card."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    with reading(card, DataError):
        parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    try:
        listed = yaml.safe_load(parts[1]).get("configs") if len(parts) == 3 and not parts[0].strip() else None
    except (yaml.YAMLError, AttributeError) as error:
        raise DataError(f"{card}: its head is not valid YAML ({error})") from error
    entries = [entry for entry in listed or () if isinstance(entry, dict) and "data_files" in entry]
    return {str(entry.get("config_name", "default")): _patterns(entry) for entry in entries}


def _patterns(entry: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    files, place = entry["data_files"], entry.get("data_dir")
    for one in files if isinstance(files, list) else [files]:
        split, paths = (one.get("split", "train"), one.get("path")) if isinstance(one, dict) else ("train", one)
        for path in paths if isinstance(paths, list) else [paths]:
            found[str(split)].append(f"{place}/{path}" if place else str(path))
    return dict(found)


def _default(configs: dict[str, Any]) -> str | None:
    """The configuration that is meant where none is named; None where there are several."""
    return "default" if "default" in configs else next(iter(configs)) if len(configs) == 1 else None


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in _DATA_ENDINGS]
    named = {path: path.relative_to(folder).as_posix() for path in files}
    return [path for path, name in named.items() if any(fnmatch(name, pattern.lstrip("./")) for pattern in patterns)]


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Files by split, where no card lists them: `test-00000-of-00002.parquet`, or `test/0000.parquet`."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.parquet")):
        matched = _SHARD.fullmatch(path.name)
        split = path.parent.name if _NUMBERED.fullmatch(path.name) else matched["split"] if matched else "train"
        if path.parent in (folder, folder / "data") or path.parent.name == split:
            found[split].append(path)
    return dict(found)
