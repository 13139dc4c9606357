"""One chunk of a dataset, sample by sample, the way training reads it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adaptkit.build import NUM_FIRST_SAMPLES
from adaptkit.chat.encoding import IGNORE_INDEX, EncodedConversation
from adaptkit.chat.vocabulary import list_words, unknown_words
from adaptkit.data.dataset import ConversationDataset, Item
from adaptkit.data.media import shown
from adaptkit.data.mixture import Mixture
from adaptkit.data_tools.check.answer_boxes import box_problems
from adaptkit.data_tools.check.findings import BAD, Findings, Problem
from adaptkit.data_tools.check.plan import CheckedDataset, errors_of_kind
from adaptkit.errors import AdaptkitError, DataError
from adaptkit.interfaces import Sample


def check_samples(dataset: CheckedDataset, indices: Iterable[int], num_examples: int = 3) -> Findings:
    """Read some samples as training does.

    Args:
        indices: Their numbers, in the order of reading.
        num_examples: Problems of each kind that are kept.

    Raises:
        AdaptkitError: Something else than the data is wrong, such as a tokenizer without a chat template.
    """
    findings = Findings()
    watched = _Watched(dataset)
    conversations = ConversationDataset(
        Mixture({dataset.name: watched}, {dataset.name: 1.0}),
        watched.encode,
        dataset.max_length or sys.maxsize,
        prepare=dataset.media.prepare if dataset.reads_media else None,
    )
    for index in indices:
        findings.num_samples += 1
        watched.forget()
        problem = None
        try:
            item = conversations[index]
        except DataError as error:
            problem = error.kind if error.kind in BAD else "other", str(error)
        except AdaptkitError:
            raise  # nothing of the sample's: no chat template, say
        except Exception as error:  # training would stop with it
            reason = (str(error).splitlines() or [""])[0]
            problem = "crash", f"{watched.where(index)}: {type(error).__name__}: {reason}"
        if problem is None:
            _note_good(findings, watched, index, item, num_examples)
        else:
            findings.add(watched.problem(index, *problem), num_examples)
            findings.num_bad_first_rows += watched.sample is None and index < NUM_FIRST_SAMPLES
    return findings


class _Watched:
    """A dataset that remembers what was read and encoded last."""

    def __init__(self, dataset: CheckedDataset) -> None:
        self.dataset = dataset
        self.sample: Sample | None = None
        self.encoded: EncodedConversation | None = None

    def __len__(self) -> int:
        return len(self.dataset.source)

    def __getitem__(self, index: int) -> Sample:
        with errors_of_kind("malformed"):
            self.sample = self.dataset.source[index]
        return self.sample

    def encode(self, sample: Sample) -> EncodedConversation:
        self.encoded = self.dataset.media.encode(sample)
        return self.encoded

    def forget(self) -> None:
        self.sample, self.encoded = None, None
        self.dataset.media.doubts.clear()

    def where(self, index: int) -> str:
        if self.sample is None:
            return f"{self.dataset.name}[{index}]"
        return f"{self.sample.location or f'{self.dataset.name}[{index}]'} (id {self.sample.id!r:.80})"

    def problem(self, index: int, kind: str, message: str) -> Problem:
        return Problem(kind, self.dataset.name, index, None if self.sample is None else self.sample.id, message)


def _note_good(findings: Findings, watched: _Watched, index: int, item: Item, num_examples: int) -> None:
    dataset, sample, encoded = watched.dataset, watched.sample, watched.encoded
    assert sample is not None
    assert encoded is not None
    parts = [part for message in sample.messages for part in message["content"]]
    length = len(encoded.input_ids)
    found = []
    unknown = unknown_words(dataset.media.processor.tokenizer, sample.messages) if dataset.knows_words else []
    if unknown:
        fate = f"read and learned as {dataset.media.processor.tokenizer.unk_token}"
        found.append(("unknown_words", f"the tokenizer does not know {list_words(unknown)}: {fate}"))
    named = [(str(s) if isinstance(s, Path) else shown(s), words) for s, words in dataset.media.doubts]
    doubts = dict.fromkeys(f"{name}: {words}" for name, words in named)
    if doubts:
        found.append(("doubtful_media", "; ".join(doubts)))
    processor = dataset.media.processor
    special = processor.special_tokens_in(sample.messages) if dataset.in_tokens else []
    if special:
        fate = "read as those tokens" if processor.special_tokens_in_text else "read and learned as text"
        found.append(("special_tokens", f"the text holds the special tokens {list_words(special)}: {fate}"))
    if dataset.max_length is not None and length > dataset.max_length:
        found.append(("cut", f"{length:,} tokens, cut to {item['length']:,}"))
    for message in sample.messages:
        if message["role"] == "assistant":
            found += box_problems("".join(part["text"] for part in message["content"] if part["type"] == "text"))
    for kind, words in dict(found).items():
        findings.add(watched.problem(index, kind, f"{watched.where(index)}: {words}"), num_examples)
    if dataset.in_tokens:
        findings.num_tokens += item["length"]
        findings.num_labelled += int((item["labels"] != IGNORE_INDEX).sum())
    else:
        length = sum(len(part["text"]) for part in parts if part["type"] == "text")
    findings.indices.append(index)
    findings.lengths.append(length)
    media = [part["type"] for part in parts if part["type"] != "text"]
    findings.media.update(media)
    findings.max_media = max(findings.max_media, len(media))
    findings.id_hashes.append(_hash(sample.id.encode(errors="surrogatepass")))
    findings.content_hashes.append(_content_hash(dataset, sample))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def _content_hash(dataset: CheckedDataset, sample: Sample) -> int:
    """A hash of roles, texts and media; 0 where media are embedded and none are read."""
    pieces = []
    for message in sample.messages:
        pieces.append(message["role"])
        for part in message["content"]:
            kind = part["type"]
            key = part["text"] if kind == "text" else _media_key(dataset, part)
            if key is None:
                return 0
            pieces += [kind, key]
    return _hash("\0".join(pieces).encode(errors="surrogatepass"))


def _media_key(dataset: CheckedDataset, part: Mapping[str, Any]) -> str | None:
    source = part[part["type"]]
    if isinstance(source, str | Path):
        return str(source)
    if not dataset.reads_media:
        return None
    return dataset.media.processor.modalities[part["type"]].modality.content_key(source)
