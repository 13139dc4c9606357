"""Where the members of an archive are: compact, since a dataset may have millions, and kept on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from adaptkit.files.writing import atomic_file

FileEntry = tuple[str, int, int]
"""Name, offset and size of a member."""


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one archive, each a list of members.

    Attributes:
        names: Bytes of all names, one after the other.
        name_ends: Where each name ends.
        offsets: First byte of each member.
        sizes: Bytes of each member.
        starts: First member of each sample, and the number of members.
    """

    names: NDArray[np.uint8]
    name_ends: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Iterable[tuple[Any, Iterable[FileEntry]]]) -> ShardIndex:
        """Of the members of each sample, behind its key."""
        names, ends, offsets, sizes, starts = bytearray(), [0], [], [], [0]
        for _, members in groups:
            for name, offset, size in members:
                names += name.encode(errors="surrogatepass")  # names in archives are bytes, and need not be Unicode
                ends.append(len(names))
                offsets.append(offset)
                sizes.append(size)
            starts.append(len(offsets))
        numbers = (np.array(values, dtype=np.int64) for values in (ends[1:], offsets, sizes, starts))
        return cls(np.frombuffer(bytes(names), dtype=np.uint8), *numbers)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> list[FileEntry]:
        """The members of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return [self._member(number) for number in range(self.starts[index], self.starts[index + 1])]

    def _member(self, number: int) -> FileEntry:
        name = self.names[self.name_ends[number - 1] if number else 0 : self.name_ends[number]]
        return name.tobytes().decode(errors="surrogatepass"), int(self.offsets[number]), int(self.sizes[number])

    @classmethod
    def load(cls, path: Path) -> ShardIndex | None:
        """One that was saved; None where it is not there, or not whole."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                index = cls(*(arrays[name] for name in cls.__dataclass_fields__))
        except (OSError, ValueError, LookupError, EOFError, MemoryError, BadZipFile):
            return None
        num_members = int(index.starts[-1]) if len(index.starts) else -1
        whole = all(len(values) == num_members for values in (index.name_ends, index.offsets, index.sizes))
        return index if whole and (num_members == 0 or index.name_ends[-1] == len(index.names)) else None

    def save(self, path: Path) -> None:
        """Write it in one step, so that other processes see all of it or nothing."""
        with atomic_file(path, "wb", shared=True) as file:
            np.savez(file, **{field: getattr(self, field) for field in self.__dataclass_fields__})
