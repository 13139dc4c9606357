"""Stops a stage whose loss is not finite, or jumps, and keeps the batch for inspection."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from adaptkit.errors import RunError
from adaptkit.files.writing import staged_folder
from adaptkit.interfaces import EncodedFeatures
from adaptkit.training import checkpoints

BATCH_FOLDER = "bad_batch"

_FIRST_STEPS = 20
_RECENT_STEPS = 50
_GUESSING = 12.4
"""Loss of a guess among 250,000 words, more than nearly all vocabularies have."""

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class _Step:
    number: int
    losses: list[Tensor]
    batches: list[Batch]


class LossWatch:
    """The loss of each step, looked at when that stalls nothing.

    A loss jumps where it is more than `spike` times the median of the last steps, and above those that the stage began
    with: an unlucky batch does not bring it there, a learning rate that is too high does. Among those, it jumps where
    it is so many times the first, and worse than guessing.

    Args:
        output_dir: The stage's folder; the batch goes to `bad_batch` in it.
        spike: How many times; infinity for no limit.
        decode: Text of token ids, to show what a batch said.
    """

    def __init__(
        self, stage: str, output_dir: Path, spike: float, decode: Callable[[Sequence[int]], str] | None = None
    ) -> None:
        self._stage = stage
        self._output_dir = output_dir
        self._spike = spike
        self._decode = decode
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._unchecked: list[_Step] = []

    def add(self, step: int, loss: Tensor, batch: Batch) -> None:
        """Note the loss of one forward pass of a step; passes of one step are added up."""
        if not self._unchecked or self._unchecked[-1].number != step:
            self._unchecked.append(_Step(step, [], []))
        self._unchecked[-1].losses.append(loss.detach())
        self._unchecked[-1].batches.append(batch)
        for earlier in self._unchecked[:-1]:  # their features may be large: what they said is enough
            earlier.batches[:] = [_texts_only(given) for given in earlier.batches]

    def check(self, learning_rates: Sequence[float]) -> None:
        """Look at what was added since the last time.

        Raises:
            RunError: A loss is not finite, or jumps; the message says where its batch was saved.
        """
        steps, self._unchecked = self._unchecked, []
        for step in steps:
            loss = float(torch.stack(step.losses).sum())
            problem = self._problem(loss)
            if problem is not None:
                raise RunError(self._explain(step, problem, learning_rates))
            if len(self._first) < _FIRST_STEPS:
                self._first.append(loss)
            self._recent.append(loss)

    def _problem(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if math.isinf(self._spike) or not self._first:
            return None
        if len(self._first) < _FIRST_STEPS:
            began = self._first[0]
            if loss <= max(self._spike * began, _GUESSING):
                return None
            return f"the loss jumped to {loss:.3g}, {loss / began:.1f} times that of the first step (loss_spike)"
        usual = median(self._recent)
        if loss <= self._spike * usual or loss <= median(self._first):
            return None
        return f"the loss jumped to {loss:.3g}, {loss / usual:.1f} times its median of {usual:.3g} (loss_spike)"

    def _explain(self, step: _Step, problem: str, rates: Sequence[float]) -> str:
        folder = self._output_dir / BATCH_FOLDER
        try:
            with staged_folder(folder) as staged:
                save_batches(staged, step.batches, self._decode)
            where = f"Its batch is in {folder}: look for a faulty sample there"
        except RunError as error:
            where = f"Its batch could not be saved ({error})"
        saved = checkpoints.list_checkpoints(self._output_dir)
        return (
            f"stage {self._stage!r}: {problem} near step {step.number}, at learning rates "
            f"{', '.join(f'{rate:.2g}' for rate in sorted(set(rates)))}. {where}; else lower the learning rate or "
            "max_grad_norm, or raise warmup_ratio. "
            + (
                f"With such changes, --resume {saved[-1]} resumes from the last checkpoint before it."
                if saved
                else "There is no checkpoint before it: train the stage again."
            )
        )


def save_batches(folder: Path, batches: Sequence[Batch], decode: Callable[[Sequence[int]], str] | None) -> None:
    """Write batches as `batch-N.safetensors`, and what their conversations say as `batch-N.json`.

    Args:
        decode: Text of token ids, where there is a tokenizer.
    """
    for number, batch in enumerate(batches):
        # Copies: features of one medium may be one tensor several times
        copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in _tensors(batch)}
        save_file(copies, folder / f"batch-{number}.safetensors")
        rows = batch["input_ids"].tolist() if "input_ids" in batch else []
        about = {
            "segment_lengths": batch.get("segment_lengths"),
            "rows": [decode(row) if decode is not None else row for row in rows],
        }
        text = json.dumps(about, indent=1, ensure_ascii=False)
        (folder / f"batch-{number}.json").write_text(text + "\n", encoding="utf-8")


def _tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in batch.items():
        if isinstance(value, Tensor):
            found.append((name, value.detach().cpu()))
        elif name == "features":
            for modality, items in value.items():
                items = items.items if isinstance(items, EncodedFeatures) else items
                items = [items] if isinstance(items, Tensor) else items
                found += [(f"{name}.{modality}.{i}", item.detach().cpu()) for i, item in enumerate(items)]
    return found


def _texts_only(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "features"}
