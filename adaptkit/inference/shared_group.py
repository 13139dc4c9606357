"""Requests of the base and of several workflows in one decoder pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from adaptkit.inference.engine import BatchGroup
from adaptkit.inference.merged import MergedDecoder
from adaptkit.inference.pending import Pending, take_logits
from adaptkit.inference.prefixes import Keys, PrefixCache, num_equal, prompt_keys
from adaptkit.inference.routing import TEXT
from adaptkit.inference.row_cache import CachedRow, RowsCache, join_rows, row_of, stack_rows
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.surgery import AdapterContext
from adaptkit.surgery.decoder import text_config

LONG_PROMPT = 256
"""Positions from which a prompt keeps a processor busy by itself, so that a batch gains nothing, and costs padding."""

MAX_POSITIONS = 4096
"""Most positions of a batch of prompts."""

WORTH_WAITING = 32
"""Positions that a patient prompt waits for, which another one computes now."""


@dataclass
class _Batch:
    """Rows that decode together, sorted by workflow.

    `mask` is 1 at a row's positions and 0 at the padding on their left, `(rows, positions in the cache)`.
    """

    requests: list[Pending[Any]]
    cache: RowsCache
    mask: Tensor

    @property
    def names(self) -> list[str]:
        return [request.workflow for request in self.requests]


@dataclass
class _Prompt:
    """A request about to join: the part of its prompt that is computed already, and the rest."""

    request: Pending[Any]
    keys: Keys
    prefix: CachedRow | None
    num_cached: int = 0

    @property
    def start(self) -> int:
        return self.prefix.length if self.prefix is not None else 0

    @property
    def rest(self) -> list[int]:
        return self.request.prompt.input_ids[self.start :]


class SharedGroup(BatchGroup):
    """Rows of the base and of workflows on it, in one pass over a merged decoder.

    Args:
        base: The base.
        workflows: Those that share the pass, by name, in the order in which rows are sorted.
        processors: Of the base and of the workflows.
        prefix_cache_bytes: See `Session`.

    Attributes:
        merged: The decoder of the pass.
        prefixes: Keys and values of earlier prompts and answers.
    """

    def __init__(
        self,
        base: Any,
        workflows: Mapping[str, AdaptkitForConditionalGeneration],
        processors: Mapping[str, AdaptkitProcessor],
        *,
        prefix_cache_bytes: int,
    ) -> None:
        self.workflows = (TEXT, *workflows)
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._base, self._models, self._processors = base, dict(workflows), dict(processors)
        self.merged = MergedDecoder(base, workflows)
        self._config = text_config(self.merged.model)
        empty = RowsCache(config=self._config)
        windows = [empty.window(slot) for slot in range(len(self.merged.owners))]
        self._window = min((window for window in windows if window is not None), default=None)
        self._batch: _Batch | None = None
        self._device = base.device

    @property
    def running(self) -> Sequence[Pending[Any]]:
        """Requests with a place in the batch."""
        requests = self._batch.requests if self._batch is not None else []
        return [request for request in requests if not request.is_finished]

    def reset(self) -> None:
        """Drop every place."""
        self._batch = None

    def status(self) -> dict[str, Any]:
        """Also how often a prefix was there, and what prefixes take."""
        hits, lookups = self.prefixes.num_hits, self.prefixes.num_lookups
        kept = {"kept": len(self.prefixes), "bytes": self.prefixes.num_bytes, "hits": hits, "lookups": lookups}
        return {**super().status(), "prefixes": kept}

    # -- prompts -------------------------------------------------------------------------------------------------

    def admit(self, requests: list[Pending[Any]]) -> None:
        """Run prompts and join them to the batch; those that begin with the same media compute them once."""
        left = requests
        while left:
            prompts, left = self._first_of_each_prefix(left)
            for batch in _similar([prompt for prompt in prompts if self._failing_alone([prompt], self._run_media)]):
                self._failing_alone(batch, self._start)

    def _failing_alone(self, prompts: list[_Prompt], action: Callable[[list[_Prompt]], None]) -> bool:
        """Whether an action on prompts succeeds; where it does not, their requests fail, and rows that run go on."""
        try:
            action(prompts)
        except Exception as error:
            for prompt in prompts:
                prompt.request.fail(error)
            return False
        return True

    def _first_of_each_prefix(self, requests: list[Pending[Any]]) -> tuple[list[_Prompt], list[Pending[Any]]]:
        """Prompts to run now, and requests that wait for the prefix of one of them."""
        prompts: list[_Prompt] = []
        later: list[_Prompt] = []
        begun: set[tuple[str, bytes]] = set()
        for request in requests:
            keys = prompt_keys(request.prompt)
            end = request.prompt.media_end
            begins = (request.workflow, keys[:end].tobytes())
            if end and begins in begun and self.prefixes.max_bytes:
                later.append(_Prompt(request, keys, None))
                continue
            begun.add(begins)
            found = self.prefixes.find(request.workflow, request.prompt, keys)
            prompt = _Prompt(request, keys, found, found.length if found else 0)
            (later if self._should_wait(prompt, prompts) else prompts).append(prompt)
        return prompts, [prompt.request for prompt in later]

    def _should_wait(self, prompt: _Prompt, others: list[_Prompt]) -> bool:
        """Whether a patient prompt begins, beyond what is there of it, as one of those that run now."""
        if not (prompt.request.prompt.is_patient and self.prefixes.max_bytes):
            return False
        alike = (num_equal(o.keys, prompt.keys) for o in others if o.request.workflow == prompt.request.workflow)
        return max(alike, default=0) - prompt.start >= WORTH_WAITING

    def _run_media(self, prompts: list[_Prompt]) -> None:
        """Run and keep what precedes the text after the media, where a sliding window would forget it."""
        for prompt in prompts:
            end = prompt.request.prompt.media_end
            forgets = self._window is not None and self._window < len(prompt.keys)
            if forgets and self.prefixes.max_bytes and prompt.start < end < len(prompt.keys):
                head = _Prompt(prompt.request, prompt.keys[:end], prompt.prefix)
                batch, _ = self._run([head], end)
                prompt.prefix = self._keep(batch, 0, head.keys)

    def _start(self, prompts: list[_Prompt]) -> None:
        """Run what is left of prompts, and give their requests places; those that cannot run together do so alone."""
        prompts.sort(key=lambda prompt: self.workflows.index(prompt.request.workflow))
        try:
            batch, logits = self._run(prompts)
        except Exception:
            if len(prompts) == 1:
                raise
            for prompt in prompts:
                self._failing_alone([prompt], self._start)
            return
        for row, prompt in enumerate(prompts):
            prompt.request.cached_tokens = min(prompt.num_cached, prompt.start)
            if self.prefixes.max_bytes:
                self._keep(batch, row, prompt.keys)
        take_logits(batch.requests, logits)
        started = self._unfinished(batch)
        if started is not None:
            self._batch = started if self._batch is None else self._join(self._batch, started)

    def _run(self, prompts: list[_Prompt], stop: int | None = None) -> tuple[_Batch, Tensor]:
        """A pass over what is left of prompts, up to a position; logits `(rows, positions, vocab)` at the last ones."""
        prefixes = [prompt.prefix for prompt in prompts]
        past = max(prompt.start for prompt in prompts)
        rests = [prompt.request.prompt.input_ids[prompt.start : stop] for prompt in prompts]
        width = max(map(len, rests))
        mask = torch.zeros(len(prompts), past + width, dtype=torch.long)
        for row, (prompt, rest) in enumerate(zip(prompts, rests, strict=True)):
            mask[row, past - prompt.start : past] = 1
            mask[row, past + width - len(rest) :] = 1
        mask = mask.to(self._device)
        found = [prefix for prefix in prefixes if prefix is not None]
        cache = stack_rows(self._config, found) if found else RowsCache(config=self._config)
        requests = [prompt.request for prompt in prompts]
        embeds, contexts = self._embed(requests, rests, width, [prompt.start for prompt in prompts])
        batch = _Batch(requests, cache, mask)
        num_scored = max(request.prompt.num_scored for request in requests) if stop is None else 1
        return batch, self._forward(batch, embeds, contexts, num_scored)

    def _embed(
        self, requests: list[Pending[Any]], rests: list[list[int]], width: int, starts: list[int]
    ) -> tuple[Tensor, dict[str, AdapterContext]]:
        """Embeddings of what rows take next, `(rows, width, hidden)`, and the contexts of workflows that have one."""
        parts: list[Tensor] = []
        contexts: dict[str, AdapterContext] = {}
        for name in self.workflows:
            rows = [row for row, request in enumerate(requests) if request.workflow == name]
            if not rows:
                continue
            padding = self._processors[name].pad_token_id
            ids = torch.tensor(
                [[padding] * (width - len(rests[row])) + rests[row] for row in rows], device=self._device
            )
            if name == TEXT:
                parts.append(self._base.get_input_embeddings()(ids))
                continue
            model = self._models[name]
            parts.append(model.embed(ids, self._features(name, [(requests[row], starts[row]) for row in rows])))
            if model.policy.uses_context:
                contexts[name] = model.context_of_rows(ids, self._media_set(name, [requests[row] for row in rows]))
        return torch.cat([part.to(self._base.dtype) for part in parts]), contexts

    def _features(self, name: str, rows: list[tuple[Pending[Any], int]]) -> dict[str, Any]:
        media: dict[str, list[Tensor]] = {}
        for request, start in rows:
            for modality, inputs in request.prompt.media_from(start).items():
                media.setdefault(modality, []).extend(inputs)
        entries = self._processors[name].modalities
        return {modality: entries[modality].preprocessor.collate(inputs) for modality, inputs in media.items()}

    def _media_set(self, name: str, requests: list[Pending[Any]]) -> Tensor:
        numbers = {modality: number for number, modality in enumerate(self._models[name].config.modalities)}
        sets = [sum({1 << numbers[modality] for modality, _, _ in request.prompt.media}) for request in requests]
        return torch.tensor(sets, device=self._device)

    # -- passes --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One further token for each row."""
        batch = self._batch
        assert batch is not None
        for request in batch.requests:
            if request.is_cancelled:
                request.finish("cancelled")
        if all(request.is_finished for request in batch.requests):
            self._batch = None
            return
        last = [[request.token_ids[-1]] for request in batch.requests]
        embeds, contexts = self._embed(
            batch.requests, last, 1, [request.num_prompt_tokens for request in batch.requests]
        )
        batch.mask = pad(batch.mask, (0, 1), value=1)
        logits = self._forward(batch, embeds, contexts)
        lengths = [len(request.token_ids) for request in batch.requests]
        take_logits(batch.requests, logits)
        for row, request in enumerate(batch.requests):
            has_grown = len(request.token_ids) > lengths[row]
            if has_grown and request.is_finished and self.prefixes.max_bytes:
                self._keep(batch, row, _answered_keys(request))
        self._batch = self._unfinished(batch)

    def _forward(
        self, batch: _Batch, embeds: Tensor, contexts: Mapping[str, AdapterContext], num_logits: int = 1
    ) -> Tensor:
        """Logits at the last positions, `(rows, num_logits, vocab)`; the cache of the batch grows."""
        self.merged.plan.set(batch.names, contexts)
        positions = (batch.mask.cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        output = self.merged.model(
            inputs_embeds=embeds,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            **({"logits_to_keep": num_logits} if self.merged.takes_logits_to_keep else {}),
        )
        logits: Tensor = output.logits[:, -num_logits:]
        return logits

    # -- places --------------------------------------------------------------------------------------------------

    def _keep(self, batch: _Batch, row: int, keys: Keys) -> CachedRow:
        """Remember the keys and values of a row."""
        cached = row_of(batch.cache, row, self.merged.owners, batch.names, len(keys))
        self.prefixes.put(batch.requests[row].workflow, keys, cached)
        return cached

    def _join(self, batch: _Batch, other: _Batch) -> _Batch:
        requests = [*batch.requests, *other.requests]
        order = sorted(range(len(requests)), key=lambda row: self.workflows.index(requests[row].workflow))
        length = max(batch.mask.shape[1], other.mask.shape[1])
        masks = [pad(mask, (length - mask.shape[1], 0)) for mask in (batch.mask, other.mask)]
        cache = join_rows(self._config, [batch.cache, other.cache], self._orders(requests, order), length)
        return _Batch([requests[row] for row in order], cache, torch.cat(masks)[order])

    def _unfinished(self, batch: _Batch) -> _Batch | None:
        """The rows that go on, without the padding that none of them needs."""
        rows = [row for row, request in enumerate(batch.requests) if not request.is_finished]
        if len(rows) == len(batch.requests) or not rows:
            return batch if rows else None
        mask = batch.mask[rows]
        length = int(mask.sum(1).max())
        cache = join_rows(self._config, [batch.cache], self._orders(batch.requests, rows), length)
        return _Batch([batch.requests[row] for row in rows], cache, mask[:, mask.shape[1] - length :])

    def _orders(self, requests: Sequence[Pending[Any]], order: Sequence[int]) -> list[list[int]]:
        """For each slot, which of its rows come in which order, if rows of the batch come in `order`."""
        found: dict[frozenset[str], list[int]] = {}
        for owners in self.merged.owners:
            if owners not in found:
                mine = [row for row, request in enumerate(requests) if request.workflow in owners]
                found[owners] = [mine.index(row) for row in order if row in mine]
        return [found[owners] for owners in self.merged.owners]


def _answered_keys(request: Pending[Any]) -> Keys:
    """Keys of a prompt and of its answer but for the last token, which no pass has seen."""
    return np.concatenate([prompt_keys(request.prompt), np.array(request.token_ids[:-1], dtype=np.int64)])


def _similar(prompts: list[_Prompt]) -> list[list[_Prompt]]:
    """Batches that waste little on padding.

    Prompts of which a prefix is there run the same number of positions each, so that no padding stands between a
    prefix and the rest; for this, prefixes are taken shorter where no medium lies in what is then computed again.
    """
    batches: list[list[_Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: (prompt.prefix is not None, len(prompt.rest))):
        last = batches[-1] if batches else []
        if last and _fits(prompt, last):
            last.append(prompt)
        else:
            batches.append([prompt])
    for batch in batches:
        width = max(len(prompt.rest) for prompt in batch)
        for prompt in batch:
            if prompt.prefix is not None:
                prompt.prefix = prompt.prefix.crop(len(prompt.request.prompt.input_ids) - width)
    return batches


def _fits(prompt: _Prompt, batch: list[_Prompt]) -> bool:
    if (prompt.prefix is None) != (batch[0].prefix is None):
        return False
    width = len(prompt.rest)
    if width > LONG_PROMPT or width * (len(batch) + 1) > MAX_POSITIONS:
        return False
    if prompt.prefix is None:
        return True
    return all(_can_start_at(other, len(other.request.prompt.input_ids) - width) for other in batch)


def _can_start_at(prompt: _Prompt, start: int) -> bool:
    """Whether the prefix of a prompt can be taken up to a position, and no medium lies after it."""
    assert prompt.prefix is not None
    return max(prompt.request.prompt.media_end, 1) <= start and prompt.prefix.can_crop(start)
