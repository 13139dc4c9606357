"""Checks of a kind of input: reading, hashing, showing, and refusing."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.hookspecs import ModalityComponent
from adaptkit.interfaces import Modality
from adaptkit.plugin_manager import PluginManager
from adaptkit.testing.checks import Check, enforce
from adaptkit.testing.components import NOWHERE, ComponentChecks
from adaptkit.testing.examples import Example
from adaptkit.testing.requirements import ContractError, brief, require, require_refused

_URL = "https://no-such-host.invalid/item"
_MOST_BYTES = 1 << 32
# Neither text nor the first bytes of any format
_NOISE = bytes(np.random.default_rng(0).integers(0x80, 0x100, 1024, dtype=np.uint8))


def check_modality(
    name: str,
    options: Mapping[str, Any],
    sources: Sequence[Any],
    bad_sources: Sequence[Any] = (),
    *,
    manager: PluginManager | None = None,
) -> None:
    """Check reading, hashing and showing of one kind of input.

    Args:
        name: What recipes call it.
        options: Valid options.
        sources: Readable items that differ from each other.
        bad_sources: Damaged, oversized or otherwise wrong ones; empty bytes, noise, a file without end, a path that is
            not there, a URL and an object of no sensible type are tried in any case.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    enforce(ModalityChecks("modality", name, Example(options, sources, bad_sources), manager).checks())


class EndlessFile(io.RawIOBase):
    """A file object without an end, which complains when it is read without a limit.

    Attributes:
        overread: Whether it had to complain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.overread = False
        self._given = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == io.SEEK_END:
            return 1 << 50
        self._given = 0
        return offset

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        self._given += size
        if size < 0 or self._given > _MOST_BYTES:
            self.overread = True
            raise MemoryError("this file has no end")
        return bytes(size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)


class ModalityChecks(ComponentChecks[ModalityComponent]):
    """The contract of one modality."""

    def checks(self) -> Iterator[Check]:
        yield from super().checks()
        yield Check("builds", self._builds, essential=True)
        yield Check("no network", self._no_network, essential=True)
        yield Check("content keys", self._content_keys)
        yield Check("reads and shows", self._reads, essential=True)
        yield Check("paths, bytes and files alike", self._ways_to_read)
        yield Check("refuses empty input", self._empty)
        yield Check("refuses corrupt input", self._corrupt)
        yield Check("refuses huge input", self._huge)
        yield Check("refuses wrong types", self._wrong_types)
        yield Check("names what is missing", self._missing)

    @cached_property
    def modality(self) -> Modality:
        built: Modality = self.component.build(self.options)
        return built

    def _builds(self) -> None:
        built = self.modality
        require(isinstance(built, Modality), f"the modality {self.name!r} builds no adaptkit.interfaces.Modality")
        require(built.name == self.name, f"the modality {self.name!r} calls itself {built.name!r}")
        require(bool(built.tag) and bool(built.plural), f"the modality {self.name!r} has an empty tag or plural")

    def _no_network(self) -> None:
        for source in [*self.example.items, _URL]:
            with self.without_network("reading items of"):
                self.modality.to_html(self.modality.load(source))
                self.modality.content_key(source)

    def _content_keys(self) -> None:
        keys = [self.modality.content_key(source) for source in self.example.items]
        require(len(set(keys)) == len(keys), "content_key is the same for different sources")
        again = [self.modality.content_key(source) for source in self.example.items]
        require(again == keys, "content_key changes when a source is read again")

    def _reads(self) -> None:
        for source in self.example.items:
            key = self.modality.content_key(source)
            item = self.modality.load(source)
            require(self.modality.content_key(source) == key, "content_key changes when a source is read again")
            require(type(self.modality.load(item)) is type(item), "load refuses or changes an item that it loaded")
            shown = self.modality.to_html(item)
            require(shown == self.modality.to_html(self.modality.load(source)), "to_html shows one source in two ways")
            require("<" in shown and "://" not in shown, "to_html must give an HTML fragment that links to nothing")

    def _ways_to_read(self) -> str | None:
        """One content has one key however it is given, and another content at the same place has another."""
        contents = [read for read in map(_content, self.example.items) if read is not None]
        if not contents:
            return "no example is a path or bytes"
        with tempfile.TemporaryDirectory() as directory:
            for number, (raw, suffix) in enumerate(contents):
                copy = Path(directory) / f"copy{number}{suffix}"
                same = Path(directory) / f"same{suffix}"  # overwritten by each content in turn
                for path in (copy, same):
                    path.write_bytes(raw)
                ways = {"a path": copy, "its text": str(copy), "bytes": raw, "a file object": io.BytesIO(raw)}
                self._same_content({"another path": same, **ways})
        return None

    def _same_content(self, ways: dict[str, Any]) -> None:
        shown: dict[str, str] = {}
        for way, source in ways.items():
            key = self.modality.content_key(source)
            try:
                shown[self.modality.to_html(self.modality.load(source))] = way
            except DataError as error:
                raise ContractError(f"what is read from another source is refused as {way}: {error}") from error
            first = self.modality.content_key(ways["another path"])
            require(key == first, f"content_key depends on where the content lies: {way} gives another key than a path")
        require(len(shown) == 1, f"one content is read in {len(shown)} ways: {' and '.join(shown.values())} differ")

    def _empty(self) -> None:
        self._refuses(b"")
        self._refuses(io.BytesIO(b""), "an empty file object")
        with tempfile.TemporaryDirectory() as directory:
            empty = Path(directory) / "empty"
            empty.touch()
            self._refuses(empty)

    def _corrupt(self) -> str | None:
        self._refuses(_NOISE, "1024 bytes of noise")
        for bad in self.example.bad_items:
            self._refuses(bad)
        return None

    def _huge(self) -> None:
        endless = EndlessFile()
        try:
            self._refuses(endless, "a file object without an end")
        finally:
            require(
                not endless.overread, "load reads a file object to its end, however far that is: read up to a limit"
            )

    def _wrong_types(self) -> None:
        for bad in (object(), None, {}):
            self._refuses(bad)

    def _missing(self) -> None:
        for bad in (NOWHERE, Path(NOWHERE), _URL):
            self._refuses(bad)
        with tempfile.TemporaryDirectory() as directory:
            self._refuses(Path(directory), "a folder")

    def _refuses(self, bad: Any, what: str = "") -> None:
        naming = str(bad) if isinstance(bad, str | Path) else ""
        require_refused(lambda: self.modality.load(bad), DataError, f"load of {what or brief(bad)}", naming=naming)


def _content(source: Any) -> tuple[bytes, str] | None:
    """The raw content of a path or bytes, and the end of its name."""
    if isinstance(source, bytes):
        return source, ""
    if isinstance(source, str | Path) and Path(source).is_file():
        return Path(source).read_bytes(), Path(source).suffix
    return None
