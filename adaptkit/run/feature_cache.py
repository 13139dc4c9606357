"""Encoder features kept on disk, so that a frozen encoder sees each input once.

A cache is a folder with two files that only grow: `features.bin`, the values, and `index.jsonl`, one line
`[key, offset, positions, size, crc32]` per item, written after its values are on the disk. Readers map the first into
memory and believe only whole lines of the second; writers take turns by a lock. So any number of processes may share
a cache, and one that is killed loses no more than what it had not yet indexed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock
from torch import Tensor

from adaptkit.errors import DataError, RunError

Loader = Callable[[], Tensor]
EncodeBatch = Callable[[list[Tensor]], "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True)
class _Entry:
    offset: int
    positions: int
    size: int
    checksum: int | None = None


class FeatureCache:
    """Features by content key, memory-mapped.

    Args:
        directory: Parent folder of all caches.
        fingerprint: Of everything that features depend on besides the content: the encoder's weights and options,
            and its preprocessing. Another fingerprint or dtype is another cache.
        dtype: Of the stored values.
    """

    def __init__(self, directory: Path, fingerprint: str, dtype: torch.dtype = torch.bfloat16) -> None:
        self._arguments = (Path(directory), fingerprint, dtype)
        self.path = Path(directory) / f"{fingerprint}-{str(dtype).removeprefix('torch.')}"
        self.dtype = dtype
        self._itemsize = torch.empty((), dtype=dtype).element_size()
        self._entries: dict[str, _Entry] = {}
        self._index_bytes = 0
        self._end = 0
        self._values = torch.empty(0, dtype=dtype)
        self._refresh()

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[Path, str, torch.dtype]]:
        return FeatureCache, self._arguments  # a worker process maps the file itself

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, keys: Sequence[str]) -> Tensor | list[Tensor]:
        """Features of several items, in the order given.

        Returns:
            `(num_items, positions, size)`; where the number of positions differs, a list of `(positions, size)`.

        Raises:
            DataError: An item was never put in.
            RunError: Its values are not those that were written.
        """
        if any(key not in self._entries for key in keys):
            self._refresh()  # another process may have added it
        items = [self._item(key) for key in keys]
        if len({item.shape for item in items}) == 1:
            return torch.stack(items)
        return items

    def _item(self, key: str) -> Tensor:
        entry = self._entries.get(key)
        if entry is None:
            raise DataError(f"no features of {key!r} in {self.path}: fill the cache with this item first")
        start = entry.offset // self._itemsize
        values = self._values[start : start + entry.positions * entry.size]
        if entry.checksum not in (None, _checksum(values)):  # caches of earlier versions have none
            raise RunError(
                f"{self.path / 'features.bin'} is damaged: the features of {key!r} are not those that were written "
                f"(checksum). Delete the folder {self.path} to have it made again."
            )
        return values.view(entry.positions, entry.size)

    def fill(
        self,
        items: Iterable[tuple[str, Loader]],
        encode_batch: EncodeBatch,
        *,
        batch_size: int = 32,
        num_workers: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, str]:
        """Encode what is not in the cache yet.

        Other processes that fill the same cache wait, and then find the items in it.

        Args:
            items: Key of each item, and what reads and preprocesses it. Repeated keys are read once.
            encode_batch: Encodes the inputs of several items: `(num_items, positions, size)`, or a sequence of
                `(positions, size)`.
            batch_size: Items encoded at once.
            num_workers: Threads that read items ahead.
            progress: Called with the items done and in all, after each batch.

        Returns:
            Why an item could not be encoded, by key.

        Raises:
            RunError: The cache cannot be written, as when the disk is full.
        """
        loaders = dict(items)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / "lock"):
                self._refresh()
                missing = {key: loader for key, loader in loaders.items() if key not in self._entries}
                failed: dict[str, str] = {}
                done = 0
                for batch in _batches(_load_ahead(missing, num_workers, 2 * batch_size), batch_size):
                    good = [(key, value) for key, value in batch if isinstance(value, Tensor)]
                    failed.update((key, str(value)) for key, value in batch if not isinstance(value, Tensor))
                    if good:
                        self._append([key for key, _ in good], encode_batch([value for _, value in good]))
                    done += len(batch)
                    if progress is not None:
                        progress(done, len(missing))
                self._refresh()
        except OSError as error:
            raise RunError(
                f"could not write encoder features to {self.path}: {error}. Free some space, or set cache_features: "
                "false; features written so far are kept."
            ) from error
        return failed

    def _append(self, keys: list[str], features: Tensor | Sequence[Tensor]) -> None:
        added: dict[str, _Entry] = {}
        end = self._end
        with _opened(self.path / "features.bin") as values:
            values.seek(end)  # whatever lies beyond was never indexed
            for key, feature in zip(keys, features, strict=True):
                feature = feature.detach().to("cpu", self.dtype).contiguous()
                added[key] = _Entry(end, feature.shape[0], feature.shape[1], _checksum(feature))
                end += values.write(feature.view(torch.uint8).numpy().data)
            _sync(values)
        lines = "".join(json.dumps([key, e.offset, e.positions, e.size, e.checksum]) + "\n" for key, e in added.items())
        with _opened(self.path / "index.jsonl") as index:
            index.seek(self._index_bytes)
            index.truncate()  # drops a line that a killed process began
            index.write(lines.encode())
            _sync(index)
        self._entries.update(added)
        self._end = end
        self._index_bytes += len(lines.encode())

    def _refresh(self) -> None:
        index = self.path / "index.jsonl"
        if not index.is_file():
            return
        with index.open("rb") as file:
            file.seek(self._index_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        try:
            for key, *place in map(json.loads, whole.splitlines()):
                entry = self._entries[key] = _Entry(*place)
                numbers = (entry.offset, entry.positions, entry.size)
                if not all(type(number) is int and number >= 0 for number in numbers) or entry.offset % self._itemsize:
                    raise ValueError("an invalid place")
                self._end = max(self._end, entry.offset + entry.positions * entry.size * self._itemsize)
        except (ValueError, TypeError) as error:
            raise RunError(f"{index} is damaged ({error}). Delete its folder to have it made again.") from error
        self._index_bytes += len(whole)
        self._map()

    def _map(self) -> None:
        num_values = self._end // self._itemsize
        if num_values <= self._values.numel():
            return
        values = self.path / "features.bin"
        if not values.is_file() or values.stat().st_size < self._end:
            raise RunError(f"{values} is shorter than its index says. Delete its folder to have it made again.")
        self._values = torch.from_file(str(values), shared=False, size=num_values, dtype=self.dtype)


def _checksum(values: Tensor) -> int:
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().data)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)), "r+b")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _load_ahead(loaders: dict[str, Loader], num_workers: int, ahead: int) -> Iterator[tuple[str, Tensor | DataError]]:
    with ThreadPoolExecutor(max_workers=max(1, num_workers)) as executor:
        waiting: deque[tuple[str, Future[Tensor | DataError]]] = deque()
        for key, loader in loaders.items():
            waiting.append((key, executor.submit(_load, loader)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for last, future in waiting:
            yield last, future.result()


def _load(loader: Loader) -> Tensor | DataError:
    try:
        return loader()
    except DataError as error:
        return error


def _batches(
    items: Iterator[tuple[str, Tensor | DataError]], batch_size: int
) -> Iterator[list[tuple[str, Tensor | DataError]]]:
    while batch := list(islice(items, batch_size)):
        yield batch
