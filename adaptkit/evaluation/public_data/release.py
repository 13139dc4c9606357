"""The files of a benchmark as its authors publish them, read with a record of what was read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, first_few
from adaptkit.files.folder import FileFolder
from adaptkit.files.loading import reading
from adaptkit.files.pickles import load_plain_pickle

COCO_FOLDERS = ("coco", "COCO", "coco2014", "coco2017", "mscoco")
"""Where pictures of COCO may lie below the data folder, for all benchmarks that use them."""


class Release(FileFolder):
    """A folder of a release below the folder that holds all data.

    Attributes:
        data_dir: The folder that holds all data; nothing outside is read.
        used: Size and modification time of each file read, and the hash of each listing, by path.
    """

    def __init__(self, path: Path, data_dir: Path, layout: Mapping[str, str]) -> None:
        super().__init__(path, layout)
        self.data_dir = data_dir
        self.used: dict[str, list[int | str]] = {}
        self._pickles: dict[str, Any] = {}

    def names(self, place: str = "", ending: str = "") -> list[str]:
        """As `FileFolder.names`, recorded."""
        self.used[str(self._inside(self.path / place))] = [_listing(self.path / place)]
        return super().names(place, ending)

    def text(self, name: str) -> str:
        """As `FileFolder.text`, recorded."""
        text = super().text(name)
        self._record(self.path / name)
        return text

    def pickle(self, name: str) -> Any:
        """The plain values in a pickle; one that would run code is refused."""
        path = self._inside(self.path / name)
        if not path.is_file():
            raise DataError(self._missing(path))
        if name not in self._pickles:
            self._record(path)
            self._pickles[name] = load_plain_pickle(path)
        return self._pickles[name]

    def file(self, name: str | Sequence[str], where: str, places: Sequence[str] = ("",)) -> Path:
        """A file that a row names.

        Args:
            name: Its path, as the row has it, or several that it may have.
            where: Where the row stands, for messages.
            places: Folders to look in: below the release, or below a folder of COCO's pictures.

        Raises:
            DataError: It is missing, or would lie outside the data folder.
        """
        names = [name] if isinstance(name, str) else name
        roots = [self.path, *_coco_folders(self.data_dir)]
        folders = dict.fromkeys(os.path.normpath(root / place) for root in roots for place in places)
        inside = [Path(folder) for folder in folders if Path(folder).is_relative_to(self.data_dir)]
        tried = [self._inside(folder / one, where) for folder in inside for one in names]
        found = next((path for path in tried if path.is_file()), None)
        if found is None:
            looked_in = first_few(list(dict.fromkeys(str(path.parent) for path in tried)), 4)
            raise DataError(f"{where}: the file {names[0]!r} is missing; looked in {looked_in}", kind="missing_media")
        self._record(found)
        return found

    def picture(self, name: str | Sequence[str], where: str, places: Sequence[str] = ("",)) -> dict[str, Any]:
        """A picture that a row names, as `datasets` keeps it: by its path, so that it is not copied."""
        path = self.file(name, where, places)
        size_of(path, where)
        return {"bytes": None, "path": str(path)}

    def _inside(self, path: Path, where: str = "") -> Path:
        place = Path(os.path.normpath(path))
        if not place.is_relative_to(self.data_dir):
            raise DataError(f"{where or path}: {str(path)!r} lies outside {self.data_dir}, and is not read")
        return place

    def _record(self, path: Path) -> None:
        self.used[str(path)] = file_state(path)


@lru_cache(maxsize=1 << 16)
def size_of(path: Path, where: str) -> tuple[int, int]:
    """Width and height in pixels of a picture, from its header.

    Raises:
        DataError: It is not a picture.
    """
    with reading(path, DataError):
        return check_picture(path, f"{where}: {path}")


def check_picture(source: Path | bytes, where: str) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        DataError: It is not a picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is not a picture that can be read ({error or type(error).__name__})") from error


def file_state(path: Path) -> list[int | str]:
    """What changes when a file does."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def is_unchanged(used: Mapping[str, Any]) -> bool:
    """Whether all that was read is as it was."""
    try:
        return all(
            (file_state(Path(p)) if len(state) == 2 else [_listing(Path(p))]) == state for p, state in used.items()
        )
    except OSError:
        return False


def _listing(folder: Path) -> str:
    with reading(folder, DataError):
        names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def _coco_folders(data_dir: Path) -> list[Path]:
    return [data_dir / name for name in COCO_FOLDERS if (data_dir / name).is_dir()]
