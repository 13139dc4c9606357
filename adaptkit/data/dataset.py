"""A mixture as a map-style dataset of encoded conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from adaptkit.chat.encoding import IGNORE_INDEX, EncodedConversation, truncate
from adaptkit.data.bad_samples import BadSamples
from adaptkit.data.lengths import Keep, Numbers, made_anew
from adaptkit.data.mixture import Mixture
from adaptkit.errors import DataError, RunError
from adaptkit.interfaces import Sample, is_stream

T = TypeVar("T")

MAX_MEMOISED = 100_000
_NUM_PROBES = 64
_NUM_DRAWS = 100
_NUM_TRIES = 10
_BAD = -1


class Item(TypedDict):
    """One encoded conversation: ids and labels `(length,)`, and `(modality, source)` in reading order."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    media: list[tuple[str, Any]]
    length: int


class ConversationDataset(Dataset[Item]):
    """Encoded conversations, indexed as the mixture is. Equal indices give equal items, in every process.

    A sample that raises `DataError` is recorded, and another one of its source stands in for it, always the same: drawn
    at random, so that a run of bad ones does not show the one after it again and again, or the next one of a stream.

    Args:
        mixture: Where samples come from.
        encode: Encodes one sample; a function of the sample alone.
        max_length: Longer conversations are truncated, never within a medium's positions.
        bad_samples: Records bad samples and says when there are too many. None: a bad sample raises.
        prepare: Reads one medium, given its modality and source; what it returns stands in the item in place
            of the source. Media that cannot be read then count as bad samples. None: sources stay unread.
    """

    def __init__(
        self,
        mixture: Mixture,
        encode: Callable[[Sample], EncodedConversation],
        max_length: int,
        bad_samples: BadSamples | None = None,
        *,
        prepare: Callable[[str, Any], Any] | None = None,
    ) -> None:
        self.mixture = mixture
        self.max_length = max_length
        self.bad_samples = bad_samples
        self._encode_sample = encode
        self._prepare = prepare
        # Media of a stream are in memory, and must not stay there
        memoised = len(mixture) <= MAX_MEMOISED and not any(map(is_stream, mixture.sources.values()))
        self._memo: dict[int, Item] | None = {} if memoised else None

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> Item:
        """The sample's item, or that of a good sample of its source in place of a bad one.

        Raises:
            DataError: The sample is bad, and bad samples are not recorded.
            RunError: Too many samples are bad, or the whole source is.
        """
        name, local = self.mixture.locate(index)
        for candidate in self._candidates(name, local):
            try:
                return self._read(index - local + candidate)
            except DataError as error:
                if self.bad_samples is None:
                    raise
                self.bad_samples.record(f"{name}[{candidate}]", str(error))
        raise RunError(f"every sample of the data source {name!r} is bad")

    def _candidates(self, name: str, local: int) -> Iterator[int]:
        """A sample of a source, and those that stand in for it in turn, all others at last."""
        source = self.mixture.sources[name]
        yield local
        if not is_stream(source):
            yield from np.random.RandomState(local).randint(len(source), size=_NUM_DRAWS).tolist()
        for step in range(1, len(source)):
            yield (local + step) % len(source)

    def strike_out_repaired(self) -> None:
        """Let samples that an earlier part of the run recorded as bad count as good, where they are by now."""
        starts = {self.mixture.locate(start)[0]: start for start in self.mixture.starts}
        recorded = () if self.bad_samples is None else self.bad_samples.locations()
        repaired = []
        for location in recorded:
            name, _, place = location[:-1].rpartition("[")
            source = self.mixture.sources.get(name)
            if source is None or is_stream(source) or not int(place) < len(source):
                continue
            with suppress(DataError):
                self._read(starts[name] + int(place))
                repaired.append(location)
        if self.bad_samples is not None and repaired:
            self.bad_samples.strike_out(repaired)

    def lengths(self, keep: Keep = made_anew) -> NDArray[np.int64]:
        """Length of every sample: exact for datasets small enough to be kept in memory, else an estimate.

        Args:
            keep: Where what is counted of each sample stays for later runs and other processes.
        """
        if self._memo is not None:
            return self._counted(keep, f"tokens, at most {self.max_length}", self._own_length, self._length)
        sizes = self._counted(keep, "characters and media", self._own_size, self._size)
        return (sizes @ self._rates(sizes)).clip(0, self.max_length).astype(np.int64)

    def _counted(
        self, keep: Keep, name: str, own: Callable[[int], Any], otherwise: Callable[[int], Any]
    ) -> NDArray[np.int64]:
        """What is counted of every sample; of a bad one, what is counted of the one that stands in for it by now."""
        parts = []
        for start, source in zip(self.mixture.starts, self.mixture.sources.values()):
            places = range(start, start + len(source))
            kept = keep(source, name, lambda places=places: _numbers(map(own, places)))  # type: ignore[misc]
            parts.append(np.array(kept, dtype=np.int64))
            for place in np.flatnonzero(parts[-1].reshape(len(source), -1)[:, 0] == _BAD):
                parts[-1][place] = otherwise(start + int(place))
        return np.concatenate(parts)

    def _read(self, index: int) -> Item:
        item = self._encode(index)
        if self._prepare is None or not item["media"]:
            return item
        try:
            media = [(modality, self._prepare(modality, source)) for modality, source in item["media"]]
        except DataError as error:
            raise _located(error, self.mixture[index]) from error
        return {**item, "media": media}

    def _encode(self, index: int) -> Item:
        if self._memo is not None and index in self._memo:
            return self._memo[index]
        sample = self.mixture[index]
        try:
            encoded = truncate(self._encode_sample(sample), self.max_length)
            if encoded.labels.count(IGNORE_INDEX) == len(encoded.labels):
                raise DataError("no answer to learn from", kind="empty_answer")
        except DataError as error:
            raise _located(error, sample) from error
        item: Item = {
            "input_ids": np.array(encoded.input_ids),
            "labels": np.array(encoded.labels),
            "media": encoded.media,
            "length": len(encoded.input_ids),
        }
        if self._memo is not None:
            self._memo[index] = item
        return item

    def _length(self, index: int) -> int:
        return self._first_good(index, lambda i: self._encode(i)["length"], 0)

    def _own_length(self, index: int) -> int:
        try:
            return self._encode(index)["length"]
        except DataError:
            return _BAD

    def _first_good(self, index: int, read: Callable[[int], T], otherwise: T) -> T:
        """What is read of a sample, or of what stands in for it; `otherwise` where most of its source is bad."""
        name, local = self.mixture.locate(index)
        for candidate in islice(self._candidates(name, local), _NUM_TRIES):
            with suppress(DataError):
                return read(index - local + candidate)
        return otherwise

    def _rates(self, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Tokens of a character and of a medium, by a few samples that are encoded."""
        probes = range(0, len(self), max(1, len(self) // _NUM_PROBES))
        lengths = np.array([self._full_length(i) for i in probes], dtype=float)
        rates: NDArray[np.float64] = np.linalg.lstsq(sizes[probes].astype(float), lengths, rcond=None)[0]
        return rates

    def _full_length(self, index: int) -> int:
        try:
            return len(self._encode_sample(self.mixture[index]).input_ids)
        except DataError:
            return 0

    def _size(self, index: int) -> tuple[int, int]:
        return _size_of(self._first_good(index, lambda i: self.mixture[i], Sample("", [])))

    def _own_size(self, index: int) -> tuple[int, int]:
        try:
            return _size_of(self.mixture[index])
        except DataError:
            return _BAD, 0


def _numbers(values: Iterable[Any]) -> Numbers:
    return np.array(list(values), dtype=np.int32)


def _size_of(sample: Sample) -> tuple[int, int]:
    """Characters and media."""
    parts = [part for message in sample.messages for part in message["content"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return sum(map(len, texts)), len(parts) - len(texts)


def _located(error: DataError, sample: Sample) -> DataError:
    return DataError(f"{sample.location} (id {sample.id!r:.80}): {error}", kind=error.kind)
