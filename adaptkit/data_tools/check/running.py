"""A check from its plan to its report, in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from adaptkit.build import NUM_FIRST_SAMPLES
from adaptkit.data_tools.check.findings import BAD, Findings, Problem
from adaptkit.data_tools.check.plan import CheckedDataset, Plan
from adaptkit.data_tools.check.samples import check_samples
from adaptkit.errors import AdaptkitError, DataError, RunError
from adaptkit.interfaces import is_stream

CHUNK = 32
MIN_CHUNKS_PER_WORKER = 8
"""A process that has fewer costs more to start than it saves."""

Progress = Callable[[int, int, str], None]


@dataclass
class Report:
    """The result of a check.

    Attributes:
        plan: What was checked.
        findings: What was found in each dataset.
        reasons: Why the data cannot be trained on; empty where it can.
        unchecked: What was not checked, in a few words each.
    """

    plan: Plan
    findings: dict[str, Findings]
    reasons: list[str]
    unchecked: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Problems of a kind in all datasets."""
        return sum(found.counts[kind] for found in self.findings.values())

    def examples(self, kind: str, num_examples: int) -> list[Problem]:
        """The first problems of a kind, of every dataset in turn."""
        return [p for found in self.findings.values() for p in found.examples.get(kind, ())][:num_examples]


def run_check(
    plan: Plan,
    *,
    workers: int | None = None,
    num_examples: int = 3,
    sample: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look through all datasets of a plan.

    Args:
        plan: What to check.
        workers: Processes; as many as there are cores where not given.
        num_examples: Problems of each kind and dataset that are kept.
        sample: Look at so many samples of each dataset, drawn at random; None: all.
        strict: Whether problems of samples that would be trained on make the data unusable too.
        progress: Called with samples looked at, samples in all, and the dataset's name.

    Raises:
        RunError: A process was killed.
        AdaptkitError: Something else than the data is wrong, such as a tokenizer without a chat template.
    """
    chunks = [c for number, d in enumerate(plan.datasets) for c in _chunks_of(number, d, sample)]
    findings = {dataset.name: Findings() for dataset in plan.datasets}
    total, done = sum(len(indices) for _, indices in chunks), 0
    for number, found in _run(plan.datasets, chunks, workers or os.cpu_count() or 1, num_examples):
        name = plan.datasets[number].name
        findings[name].merge(found, num_examples)
        done += found.num_samples
        if progress is not None:
            progress(done, total, f"checking {name}")
    for dataset in plan.datasets:
        _note_duplicates(dataset, findings[dataset.name], num_examples)
    num_samples = sum(len(dataset.source) for dataset in plan.datasets)
    rest = [f"{num_samples - total:,} of {num_samples:,} samples"] if total < num_samples else []
    return Report(plan, findings, list(_reasons(plan, findings, strict)), [*rest, *plan.unchecked])


Chunk = tuple[int, Sequence[int]]
"""Index of a dataset, and indices of its samples."""


def _chunks_of(number: int, dataset: CheckedDataset, sample: int | None) -> Iterator[Chunk]:
    indices: Sequence[int] = range(len(dataset.source))
    if sample is not None and sample < len(indices):
        if is_stream(dataset.source):
            indices = indices[:sample]  # what comes first; others cost as much to skip as to read
        else:
            indices = sorted(np.random.default_rng(0).choice(len(indices), sample, replace=False).tolist())
    return ((number, indices[start : start + CHUNK]) for start in range(0, len(indices), CHUNK))


class _Chunks(Dataset[tuple[int, Findings | AdaptkitError]]):
    """Findings of each chunk, or what went wrong; a dataset of torch, for its processes."""

    def __init__(self, datasets: Sequence[CheckedDataset], chunks: Sequence[Chunk], num_examples: int) -> None:
        self._datasets = datasets
        self._chunks = chunks
        self._num_examples = num_examples

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> tuple[int, Findings | AdaptkitError]:
        number, indices = self._chunks[index]
        try:
            return number, check_samples(self._datasets[number], indices, self._num_examples)
        except AdaptkitError as error:  # raised, it would come with the traceback of another process
            return number, error


def _as_it_is(value: Any) -> Any:
    return value


def _run(
    datasets: Sequence[CheckedDataset], chunks: Sequence[Chunk], workers: int, num_examples: int
) -> Iterator[tuple[int, Findings]]:
    """Findings of all chunks, in their order but for streams, which one process reads from start to end."""
    streams = {number for number, dataset in enumerate(datasets) if is_stream(dataset.source)}
    for here in (False, True):
        part = [chunk for chunk in chunks if (chunk[0] in streams) == here]
        most = min(workers, len(part) // MIN_CHUNKS_PER_WORKER)
        loader = DataLoader(
            _Chunks(datasets, part, num_examples),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=0 if here or most < 2 else most,
        )
        try:
            for number, found in loader:
                if isinstance(found, AdaptkitError):
                    raise found
                yield number, found
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RunError(
                "a process of the check was killed, most likely because memory ran out. Try fewer --workers."
            ) from error


def _note_duplicates(dataset: CheckedDataset, findings: Findings, num_examples: int) -> None:
    for kind, hashes in (("same_id", findings.id_hashes), ("same_content", findings.content_hashes)):
        words = "has the id of" if kind == "same_id" else "is a copy of"
        indices = np.array(findings.indices)
        first, later = _repeated(np.array(hashes))
        for number, (one, other) in enumerate(zip(indices[first].tolist(), indices[later].tolist())):
            location, sample_id = f"{dataset.name}[{other}]", None
            if number < num_examples:
                with suppress(DataError):
                    sample = dataset.source[other]
                    location, sample_id = f"{sample.location or location} (id {sample.id!r:.80})", sample.id
            problem = Problem(kind, dataset.name, other, sample_id, f"{location}: {words} sample {one}")
            findings.add(problem, num_examples)


def _repeated(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of hashes that occurred before, and where each did first."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    places = np.arange(len(hashes))
    earliest = first[inverse]
    later = places[(earliest != places) & (hashes != 0)]
    return earliest[later], later


def _reasons(plan: Plan, findings: dict[str, Findings], strict: bool) -> Iterator[str]:
    if plan.unopened:
        yield f"{len(plan.unopened)} of {len(plan.unopened) + len(findings)} datasets cannot be opened"
    for name, found in findings.items():
        size = min(NUM_FIRST_SAMPLES, found.num_samples)
        if not found.num_samples:
            yield f"{name} is empty"
        elif found.num_bad == found.num_samples:
            yield f"all {found.num_samples:,} samples of {name} are bad"
        elif found.num_bad_first_rows == size:
            yield f"the first {size} rows of {name} are all bad, so training does not begin"
        if found.counts["crash"]:
            yield f"{found.counts['crash']:,} samples of {name} would stop training"
    for mixture, names in plan.mixtures.items():
        part = [findings[name] for name in names if name in findings]
        bad, size = sum(f.num_bad for f in part), sum(f.num_samples for f in part)
        if bad > plan.max_bad_fraction * size:
            allowed = int(plan.max_bad_fraction * size)
            yield (
                f"{mixture}: {bad:,} of {size:,} samples are bad; max_bad_fraction {plan.max_bad_fraction:g} "
                f"allows {allowed:,}"
            )
    noted = sum(sum(f.counts.values()) - sum(f.counts[k] for k in BAD) for f in findings.values())
    if strict and noted:
        yield f"{noted:,} further problems, which --strict does not tolerate"
