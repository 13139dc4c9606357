"""Released layouts of public benchmarks, each read into the rows that the hub's dataset has.

One module a layout. It has `features(config)`, the columns and types of the hub's dataset, and `rows(release, config,
split, files)`, which yields the rows of a split from the files that hold it. Of a module that reads several datasets
`config` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """How a release lies in the data folder.

    Attributes:
        module: The module of this package that reads it.
        folders: Names that the release's folder may have below the data folder, whatever their case.
        splits: For each configuration and split of the hub's dataset, a pattern of the file or folder that holds it;
            `|` separates patterns of which one is enough. `*` stands for the configuration where it is any subject.
        files: What lies in the folder, for messages and `--list-tasks`.
        kind: Which of the module's datasets it is, where it has several; else it gets the configuration.
    """

    module: str
    folders: tuple[str, ...]
    splits: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str]
    kind: str = ""

    def find(self, data_dir: Path, config: str | None, split: str) -> tuple[Path, list[str]] | None:
        """The release's folder, and the files in it that hold a split; None where there is none."""
        patterns = self.splits_of(config).get(split)
        if patterns is None:
            return None
        for folder in self.places(data_dir):
            for pattern in patterns.split("|"):
                found = _match(folder, pattern.replace("{config}", config or ""))
                if found:
                    return folder, found
        return None

    def splits_of(self, config: str | None) -> Mapping[str, str]:
        """Patterns of the splits of a configuration."""
        return self.splits.get(config or "default", self.splits.get("*", {}))

    def places(self, data_dir: Path) -> list[Path]:
        """Folders in which the release may lie: those of its names, and what they hold one level deeper."""
        found = [path for name in self.folders for path in _folders(data_dir, name)]
        inner = [path for folder in found for path in sorted(folder.iterdir()) if path.is_dir()]
        return [*found, *inner]


def _folders(data_dir: Path, name: str) -> list[Path]:
    """Folders of a name; of an empty one the data folder itself."""
    return [data_dir / place for place in _match(data_dir, name)] if name else [data_dir]


def _match(folder: Path, pattern: str) -> list[str]:
    """Files or folders that match a pattern, relative to a folder; upper and lower case are the same."""
    places = [folder]
    for part in pattern.split("/"):
        places = [
            entry
            for place in places
            if place.is_dir()
            for entry in sorted(place.iterdir())
            if fnmatch(entry.name.casefold(), part.casefold())
        ]
    return [str(place.relative_to(folder)) for place in places]
