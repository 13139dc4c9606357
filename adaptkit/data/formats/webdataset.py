"""Samples of webdataset shards, by index: tar archives whose headers are scanned once."""

from __future__ import annotations

import re
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from adaptkit.data.formats.shard_index import ShardIndex
from adaptkit.data.media import Media, shown, spellings
from adaptkit.data.media_types import kind_of
from adaptkit.errors import DataError
from adaptkit.files.text import decode_text, parse_json

MAX_TEXT_BYTES = 64 * 1024**2
_COMPRESSED = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f": "zstandard"}
_DIGITS = re.compile(r"([0-9]{1,18})")
_SCAN = "each key once"
"""What a scan makes sure of; indices of scans that did not are not used."""
_BLOCK = 512
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
MAX_EXTENSION = 1024**2
_MAGIC = slice(257, 262)
_END = 2 * _BLOCK
_RECORD, _MAX_RECORD = 20 * _BLOCK, 2 * 1024**2


@dataclass(frozen=True)
class Member:
    """One file inside a shard, which stays unread until it is needed.

    Attributes:
        shard: The archive.
        member: Name in it.
        offset: Of its first byte.
        size: In bytes.
    """

    shard: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return _printable(f"{self.shard}:{self.member}")

    @property
    def ending(self) -> str:
        """What follows the first dot of its name, in lower case."""
        return split_name(self.member)[1]

    def read(self, size: int = -1) -> bytes:
        """The content, at most `size` bytes of it where that is not negative.

        Raises:
            DataError: The shard has changed, or is gone.
        """
        wanted = self.size if size < 0 else min(size, self.size)
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(wanted)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}", kind="unreadable_file") from error
        if len(content) < wanted:
            raise DataError(f"{self.name} is cut short: the shard is not as long as it was", kind="unreadable_file")
        return content


class Group(dict[str, Any]):
    """A row with the media that lie beside it."""

    def __init__(self, row: Mapping[str, Any], members: GroupMembers) -> None:
        super().__init__(row)
        self.members = members


class GroupMembers:
    """The members of one group that are not its texts.

    Args:
        members: In the order of the shard.
        endings: Endings of each modality, beside those whose media type begins with its name.
    """

    def __init__(self, members: Sequence[Member], endings: Mapping[str, Sequence[str]]) -> None:
        self._members = members
        self._endings = endings

    def named(self, name: str) -> Member | None:
        """The member of that name, with or without its folder, or of that ending; None where there is none."""
        names = set(spellings(name))
        for member in self._members:
            if not names.isdisjoint((member.member, member.member.rpartition("/")[2])):
                return member
        wanted = name.removeprefix(".").lower()
        return next((member for member in self._members if member.ending == wanted), None)

    def others(self) -> Iterator[tuple[str, Member]]:
        """All of them, by name."""
        return ((member.name, member) for member in self._members)

    def of_modality(self, modality: str) -> list[Member]:
        """The members that are media of a modality, in the order of their endings."""
        known = [ending.removeprefix(".").lower() for ending in self._endings.get(modality, ())]
        found = [member for member in self._members if _is_of(member.ending, modality, known)]
        return sorted(found, key=lambda member: _natural(member.ending))


def _natural(ending: str) -> list[str | int]:
    """`10.png` comes after `2.png`."""
    return [int(piece) if i % 2 else piece for i, piece in enumerate(_DIGITS.split(ending))]


def _is_of(ending: str, modality: str, known: Sequence[str]) -> bool:
    last = ending.rpartition(".")[2]
    return ending in known or last in known or last == modality or kind_of(f"x.{last}") == modality


def _printable(name: str) -> str:
    """Names in archives are bytes, and need not be Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()


def split_name(name: str) -> tuple[str, str]:
    """Key and ending of a member: what stands before and after the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


class WebDatasetRows:
    """The samples of several shards, end to end.

    A sample is a run of members with the same key. Its row is the object in `KEY.json`, with what `KEY.txt` says under
    `txt`. A row without a conversation has the layout of a table.

    Args:
        shards: The archives, not compressed.
        cache_dir: Where their indices are kept, by the name, size and time of each; None keeps none.
        endings: As in `GroupMembers`.

    Raises:
        DataError: A shard is damaged, compressed, or there are no samples.
    """

    def __init__(
        self, shards: Sequence[Path], cache_dir: Path | None, endings: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._shards = list(shards)
        self._endings = dict(endings or {})
        self._groups = [load_index(shard, cache_dir) for shard in self._shards]
        self._starts = [0, *accumulate(len(groups) for groups in self._groups)]
        if not len(self):
            raise DataError(f"{self._shards[0]}: no member of the shard is named KEY.ENDING")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Group:
        """A row and its media.

        Raises:
            DataError: It has two members of one ending, or its JSON or text is malformed.
        """
        members = self._members(index)
        endings = [member.ending for member in members]
        if len(set(endings)) < len(endings):
            raise DataError(f"two members of the sample have one ending: {shown(endings)}")
        texts = {member.ending: member for member in members if member.ending in ("json", "txt")}
        row = {} if "json" not in texts else parse_json(_text(texts["json"]), texts["json"].name)
        if not isinstance(row, Mapping):
            raise DataError(f"{texts['json'].member} is an object with keys, not {type(row).__name__}")
        row = {"id": split_name(members[0].member)[0], **row}
        if "txt" in texts:
            row["txt"] = _text(texts["txt"])
        return Group(row, GroupMembers([m for m in members if m.ending not in texts], self._endings))

    def where(self, index: int) -> str:
        """Shard and key of a sample."""
        member = self._members(index)[0]
        return _printable(f"{member.shard}:{split_name(member.member)[0]}")

    def media(self, index: int) -> Media:
        """Where the media of a sample are that are not in its shard: beside that."""
        return Media(self._shards[self._shard_of(index)].parent)

    def _shard_of(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _members(self, index: int) -> list[Member]:
        number = self._shard_of(index)
        group = self._groups[number][index - self._starts[number]]
        return [Member(self._shards[number], *member) for member in group]


def _text(member: Member) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise DataError(f"{member.name} has {member.size:,} bytes, more than a text may have")
    return decode_text(member.read(), member.name)


def load_index(shard: Path, cache_dir: Path | None) -> ShardIndex:
    """The samples of a shard: as they are remembered, or scanned.

    Raises:
        DataError: The shard cannot be read, is damaged, or is compressed.
    """
    try:
        status = shard.stat()
    except OSError as error:
        raise DataError(f"cannot read the shard {shard}: {error.strerror}", kind="unreadable_file") from error
    if cache_dir is None:
        return scan(shard)
    key = f"{shard.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{_SCAN}"
    path = cache_dir / "webdataset" / f"{sha256(key.encode(errors='surrogatepass')).hexdigest()[:32]}.npz"
    index = ShardIndex.load(path)
    if index is None:
        index = scan(shard)
        with suppress(OSError):  # a cache that cannot be written saves no time, and does no harm
            index.save(path)
    return index


def scan(shard: Path) -> ShardIndex:
    """Read the headers of a shard.

    Raises:
        DataError: The shard cannot be read, is damaged, is compressed, or has the members of a key in several places.
    """
    return ShardIndex.of(_each_once(shard, groupby(_files(shard), key=lambda member: split_name(member[0])[0])))


def _each_once(shard: Path, groups: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Groups whose keys must differ: of two samples of one key each would lack what the other has, or repeat it."""
    seen: set[int] = set()
    for key, members in groups:
        if hash(key) in seen:
            raise _damaged(
                f"{shard}: members of the key {_printable(key)!r:.200} stand in two places. Write each sample once, "
                "its members one after the other (tar --sort=name)"
            )
        seen.add(hash(key))
        yield key, members


def _files(shard: Path) -> Iterator[tuple[str, int, int]]:
    size, last = shard.stat().st_size, "its beginning"
    try:
        _refuse_compressed(shard)
        with tarfile.open(shard, "r:", tarinfo=_Header) as archive:
            for member in archive:
                last = member.name
                archive.members = []  # type: ignore[attr-defined]  # the library would keep every header
                if member.sparse is not None or member.offset_data + member.size > size:
                    raise _damaged(f"{shard}: the member {last!r:.200} is sparse or cut short")
                if (member.islnk() or member.issym()) and _is_sample(last):
                    raise _damaged(
                        f"{shard}: the member {last!r:.200} is a link to {member.linkname!r:.200}. Write files in its "
                        "place (tar --dereference --hard-dereference)"
                    )
                if member.isreg() and _is_sample(last):
                    yield last, member.offset_data, member.size
            _check_end(shard, archive.offset, size)
    except DataError:
        raise
    except Exception as error:  # tarfile raises many types on damaged headers
        raise _damaged(f"{shard}: the shard is damaged after {last!r:.200}: {error}. Fetch it again") from error


class _Header(tarfile.TarInfo):
    """A header whose extensions (long names, attributes) are read only where they are as short as such things are."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _EXTENSIONS and self.size > MAX_EXTENSION:
            raise _damaged(f"an extended header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _damaged(message: str) -> DataError:
    return DataError(message, kind="unreadable_file")


def _is_sample(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith((".", "__")) and "." in last


def _refuse_compressed(shard: Path) -> None:
    with shard.open("rb") as file:
        block = file.read(_BLOCK)
    kind = _COMPRESSED.get(block[:3])
    if kind is not None and block[_MAGIC] != b"ustar":
        raise _damaged(f"{shard} is compressed ({kind}), so no sample can be found without reading all. Unpack it")


def _check_end(shard: Path, offset: int, size: int) -> None:
    """An archive ends with two empty blocks, and no more than fill up a record.

    `tarfile` takes any empty block, a damaged header or the end of the file for its end.
    """
    with shard.open("rb") as file:
        file.seek(offset)
        rest = file.read(_MAX_RECORD + _END)
    if rest[:_BLOCK].strip(b"\0"):
        raise _damaged(f"{shard}: the shard is damaged at byte {offset:,}: no header. Fetch it again")
    if len(rest) < _END:
        raise _damaged(f"{shard}: the shard is cut short: it has no end. Fetch it again")
    records = [_RECORD, *(_BLOCK << i for i in range((_MAX_RECORD // _BLOCK).bit_length()))]
    if rest.strip(b"\0") or not any(size % record == 0 and size - offset < record + _END for record in records):
        raise _damaged(
            f"{shard}: the shard ends at byte {offset:,}, and {size - offset:,} bytes follow. Either it is not fetched "
            "whole, or several were joined: fetch it again, or join their members"
        )
