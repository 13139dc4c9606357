"""The media that rows name: below a folder, inside the row, or beside it in an archive."""

from __future__ import annotations

import os
import re
import reprlib
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Protocol
from unicodedata import normalize
from urllib.parse import unquote

from adaptkit.data.media_types import begins_a_medium
from adaptkit.errors import DataError

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++=*+\s*+")
_MIN_BASE64 = 64

REMOTE = ("http://", "https://", "file://", "ftp://", "s3://", "gs://", "hf://")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 3


def shown(value: Any) -> str:
    """A value of any size and depth as a few words of a message."""
    return _short.repr(value)


class Members(Protocol):
    """Media that came with a row, such as the other members of its group in an archive."""

    def named(self, name: str) -> Any | None:
        """The one of that name or ending; None where there is none."""

    def of_modality(self, modality: str) -> list[Any]:
        """Those that are media of a modality, in order."""

    def others(self) -> Iterator[tuple[str, Any]]:
        """Name of each, and an object whose `read(size)` gives its beginning."""


@dataclass(frozen=True)
class Media:
    """Finds what rows name, and opens nothing else: rows are data, which may come from anywhere.

    A medium is a path below the folder, a `data:` URI, embedded bytes, or a mapping `{"bytes", "path"}` as Hugging
    Face datasets write it. What has been found is a path, a URI, bytes, or an object whose `read()` gives bytes.
    However a row writes a path, and wherever links on it lead, the file must lie below the folder or one of the roots.

    Attributes:
        folder: Folder that paths are relative to.
        members: What came with the row; looked in before the folder.
        roots: Further folders below which media may lie.
    """

    folder: Path
    members: Members | None = None
    roots: tuple[Path, ...] = ()

    def beside(self, row: Any, roots: tuple[Path, ...] = ()) -> Media:
        """The same, with what came with a row, and with further roots."""
        members = getattr(row, "members", None)
        if members is None and not roots:
            return self
        return replace(self, members=members or self.members, roots=(*self.roots, *roots))

    def find(self, value: Any, modality: str) -> Any:
        """One medium.

        Raises:
            DataError: It is missing, remote, outside the folders of the data, or nothing that could be a medium.
        """
        if isinstance(value, Mapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, str) and value:
            return self._named(value, modality)
        if hasattr(value, "read") or (isinstance(value, bytes) and value):
            return value
        raise DataError(f"{modality!r} holds neither a path nor content: {shown(value)}", kind="missing_media")

    def find_all(self, value: Any, name: str, modality: str) -> list[Any]:
        """The media under a key of a row: one or a list of them; where it has none, those that came with the row.

        Args:
            value: What the row has under the key.
            name: The key, for messages.
            modality: Of the media.

        Raises:
            DataError: One is missing, or the value is nothing that could be media.
        """
        if _is_absent(value) and self.members is not None:
            return self.members.of_modality(modality)
        return [self.find(item, modality) for item in listed(value, name)]

    def has(self, name: str) -> bool:
        """Whether a name is that of a file."""
        try:
            return (self.folder / name).is_file()
        except (OSError, ValueError):
            return False

    def _named(self, name: str, modality: str) -> Any:
        if name[:5].lower() == "data:":
            return name
        name = local_name(name)
        if len(name) >= _MIN_BASE64 and _is_base64(name) and not self.has(name):
            return f"data:{modality}/x-unknown;base64,{name}"
        if name.lower().startswith(REMOTE):
            raise DataError(
                f"{modality!r}: {name[:80]} is not fetched. Download it and give its path", kind="missing_media"
            )
        member = None if self.members is None else self.members.named(name)
        return self._file(name, modality) if member is None else member

    def _file(self, name: str, modality: str) -> Path:
        """The file of a name, in whichever spelling of it there is one."""
        for spelling in spellings(name):
            if self.has(spelling):
                return self._inside(self.folder / spelling, modality)
        path = self.folder / name
        try:
            found = path.is_file()
        except OSError as error:
            message = f"{modality!r} cannot be reached at {shown(str(path))}: {error.strerror}{self._remedy(name)}"
            raise DataError(message, kind="missing_media") from error
        if not found:
            message = f"{modality!r} is missing: no file {str(path)!r:.400}{self._remedy(name)}"
            raise DataError(message, kind="missing_media")
        return self._inside(path, modality)

    def _remedy(self, name: str) -> str:
        """What to do about a name without a file, where that can be determined."""
        if PureWindowsPath(name).drive:
            return ". This is a path on Windows: write paths relative to the folder of the media"
        path = PurePath(name.replace("\\", "/"))
        cases = (path.with_suffix(path.suffix.swapcase()), path.with_name(path.name.lower())) if path.name else ()
        others = {str(case): "upper and lower case" for case in (*cases, str(path).lower())}
        others |= {name.strip(): "whitespace around it", unquote(name): "characters written as %XX"}
        others |= {str(path).lstrip("/"): "what it begins with: names are relative to the folder of the media"}
        found = next((other for other in others if other and self.has(other)), None)
        return "" if found is None else f". There is {found!r:.200}, which differs in {others[found]}"

    def _inside(self, path: Path, modality: str) -> Path:
        found = Path(os.path.realpath(path))
        roots = tuple(root.absolute() for root in (self.folder, *self.roots))
        if not any(found.is_relative_to(root) for root in _opened(roots)):
            leads = "" if found == path else f", which is {str(found)!r:.400},"
            folders = ", ".join(str(folder) for folder in dict.fromkeys((self.folder, *self.roots)))
            raise DataError(
                f"{modality!r}: {str(path)!r:.400}{leads} is outside the folders of the data, {folders}. If media may "
                "be read from there, list its folder under the dataset's media_roots",
                kind="outside_media",
            )
        return path


@lru_cache(maxsize=256)
def _opened(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders below which media may lie, without links; of a snapshot of the hub also what its links lead to."""
    found = [Path(os.path.realpath(root)) for root in roots]
    snapshots = [place for root in found for place in (root, *root.parents) if place.parent.name == "snapshots"]
    return (*found, *(snapshot.parent.parent / "blobs" for snapshot in snapshots))


def local_name(name: str) -> str:
    """A path that is written as a file's address, else the name."""
    return unquote(name[7:]) if name[:8].lower() == "file:///" else name


def spellings(name: str) -> Iterator[str]:
    """A name as it is, and as other systems write it: with backslashes, and with accents composed or not."""
    yield name
    for one in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in ("NFC", "NFD"):
            spelling = normalize(form, one)
            if spelling != name:
                yield spelling


def listed(value: Any, name: str) -> Sequence[Any]:
    """What a row has under a key of media, as a list of things that could be media.

    Raises:
        DataError: It is anything else.
    """
    items = [] if _is_absent(value) else value if isinstance(value, list) else [value]
    items = [item for item in items if not _is_null(item)]
    if not all((isinstance(item, str | bytes | Mapping) and item) or hasattr(item, "read") for item in items):
        raise DataError(f"{name!r} must be a path or a list of paths, not {shown(value)}")
    return items


def media_key(row: Mapping[str, Any], modality: str) -> str:
    """Where a row that may have many media of a modality has them: under its name with an `s`, or its name."""
    plural = f"{modality}s"
    return modality if row.get(plural) is None and row.get(modality) is not None else plural


def _is_absent(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_null, value))
    return value == "" or _is_null(value)


def _is_null(value: Any) -> bool:
    """Null, as it is, as pandas writes it (NaN), or as Arrow does of a struct, `{"bytes": None, "path": None}`."""
    return (
        value is None
        or value != value
        or (isinstance(value, Mapping) and bool(value) and all(child is None for child in value.values()))
    )


def _is_base64(text: str) -> bool:
    """Whether a text is a medium in base64, and no path."""
    if _BASE64.fullmatch(text) is None:
        return False
    beginning = "".join(text[:40].split()).rstrip("=")
    return begins_a_medium(b64decode(beginning[: len(beginning) // 4 * 4]))
