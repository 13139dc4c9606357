"""Keys and values of earlier prompts and answers, for prompts that begin alike."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptkit.inference.pending import Prompt
from adaptkit.inference.row_cache import CachedRow

Keys = NDArray[np.int64]


def prompt_keys(prompt: Prompt) -> Keys:
    """One number a position: the token's id, or at a medium a negative one that stands for its content."""
    keys = np.array(prompt.input_ids, dtype=np.int64)
    for (modality, _, digest), (start, stop) in zip(prompt.media, prompt.spans, strict=True):
        content = hashlib.blake2b(f"{modality} {digest}".encode(), digest_size=7).digest()
        keys[start:stop] = -1 - int.from_bytes(content, "big")
    return keys


@dataclass
class _Entry:
    workflow: str
    keys: Keys
    row: CachedRow


class PrefixCache:
    """The most recently used prefixes that fit into a number of bytes.

    Args:
        max_bytes: Memory for keys and values; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_hits = 0
        self.num_lookups = 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, workflow: str, prompt: Prompt, keys: Keys) -> CachedRow | None:
        """The longest prefix of a prompt that is here; the positions to score are left to compute."""
        self.num_lookups += 1
        best: CachedRow | None = None
        found = -1
        for number, entry in self._entries.items():
            if entry.workflow != workflow:
                continue
            length = _usable(num_equal(entry.keys, keys), prompt)
            if length > (best.length if best else 0) and entry.row.can_crop(length):
                best, found = entry.row.crop(length), number
        if best is not None:
            self.num_hits += 1
            self._entries.move_to_end(found)
        return best

    def put(self, workflow: str, keys: Keys, row: CachedRow) -> None:
        """Keep a row; prefixes of it are dropped, for which it serves as well."""
        if row.num_bytes > self.max_bytes:
            return
        for number, entry in list(self._entries.items()):
            covered = entry.workflow == workflow and num_equal(entry.keys, keys) == len(entry.keys)
            if covered and row.can_crop(len(entry.keys)):
                self._drop(number)
        self._entries[self._next] = _Entry(workflow, keys, row)
        self._next += 1
        self.num_bytes += row.num_bytes
        while self.num_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.num_bytes = 0

    def _drop(self, number: int) -> None:
        self.num_bytes -= self._entries.pop(number).row.num_bytes


def num_equal(keys: Keys, other: Keys) -> int:
    """How many positions are equal from the start."""
    length = min(len(keys), len(other))
    differ = np.flatnonzero(keys[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _usable(length: int, prompt: Prompt) -> int:
    """A prefix of a prompt that leaves the positions to score, and ends within no medium."""
    length = min(length, len(prompt.input_ids) - prompt.num_scored)
    for start, stop in prompt.spans:
        if start < length < stop:
            return start
    return length
