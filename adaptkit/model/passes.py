"""The adapter context of each pass, and what stays beside a KV cache."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adaptkit.errors import DataError
from adaptkit.model.splice import ProjectedFeatures
from adaptkit.surgery import AdapterContext, InsertionPolicy


class PassContexts:
    """Makes contexts; those of passes that fill a cache are kept as long as the cache lives.

    Beams of one row share their media, so that reordering a cache among them concerns nothing that is kept here.
    """

    def __init__(self, policy: InsertionPolicy) -> None:
        self.policy = policy
        self._kept: weakref.WeakKeyDictionary[Any, AdapterContext] = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: dict[int, Any]) -> PassContexts:
        return PassContexts(self.policy)

    def __reduce__(self) -> tuple[Any, ...]:
        return PassContexts, (self.policy,)

    def build(
        self, input_ids: Tensor, masks: Mapping[str, Tensor], features: Mapping[str, ProjectedFeatures], cache: Any
    ) -> AdapterContext:
        """The context of one pass, which continues a cache where one is given.

        The masks of each modality's placeholders are shaped like the ids, `(batch, seq)`. Items of a row are in the
        order of their placeholders.

        Raises:
            DataError: The cache was filled by a batch of another size, or elsewhere.
        """
        any_mask = torch.zeros_like(input_ids, dtype=torch.bool)
        media_set = torch.zeros_like(input_ids[:, 0])
        for number, mask in enumerate(masks.values()):
            any_mask |= mask
            media_set |= mask.any(1).long() << number
        context = AdapterContext(any_mask, media_set)
        if features and self.policy.feature_mode == "context":
            context.media, context.media_counts = _by_row(masks, features)
        previous = self._previous(cache, input_ids.shape[0])
        if previous is not None:
            context.media_set = context.media_set | previous.media_set
            _continue_media(context, previous)
            for name in self.policy.carried:
                context.put(name, previous.get(name))
        if context.media is not None:
            seen = previous.media_counts if previous is not None else None
            before = torch.zeros_like(context.media_set) if seen is None else seen
            context.text_time = any_mask.long().cumsum(1) + before.unsqueeze(1)
        return context

    def keep(self, context: AdapterContext, cache: Any) -> None:
        """Remember the context of a pass beside the cache that it filled."""
        if cache is not None:
            self._kept[cache] = context

    def _previous(self, cache: Any, num_rows: int) -> AdapterContext | None:
        if cache is None or _is_empty(cache):
            return None
        previous = self._kept.get(cache)
        if previous is None and (self.policy.carried or self.policy.feature_mode == "context"):
            raise DataError(
                "this cache was not filled by this workflow (a copy, or another model's), so what its policy keeps "
                "beside a cache is unknown. Run the prompt through the workflow, and use the cache that it returns."
            )
        if previous is not None and previous.media_set.shape[0] != num_rows:
            raise DataError(
                f"the cache was filled by a batch of {previous.media_set.shape[0]} rows; {num_rows} rows are given."
            )
        return previous


def cache_of(values: Mapping[str, Any]) -> Any:
    """The cache among a model's arguments or outputs: state-space families call it `cache_params`."""
    found = values.get("past_key_values")
    return values.get("cache_params") if found is None else found


def _is_empty(cache: Any) -> bool:
    length = getattr(cache, "get_seq_length", None)
    if length is None:
        return False
    try:
        return int(length()) == 0
    except ValueError:  # recurrent layers alone, which have a state and no length
        return not cache.has_previous_state()


def _by_row(masks: Mapping[str, Tensor], features: Mapping[str, ProjectedFeatures]) -> tuple[Tensor, Tensor]:
    """Items of each row, in the order of their placeholders, `(batch, max_items, positions, hidden)`; their counts."""
    sizes = {name: projected.tensor.shape[1] for name, projected in features.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            "items in the context must take equally many positions; these take "
            f"{', '.join(f'{size} ({name})' for name, size in sizes.items())}. A resampler as projector of each "
            "modality makes them equal."
        )
    taken = {name: iter(projected.tensor) for name, projected in features.items()}
    rows: list[Tensor] = []
    any_mask = torch.stack([masks[name] for name in features])
    some = next(iter(features.values())).tensor
    for row in range(any_mask.shape[1]):
        order = any_mask[:, row].any(0).nonzero().flatten().tolist()
        names = [next(name for name in features if masks[name][row, column]) for column in order]
        items = [next(taken[name]) for name in names]
        rows.append(torch.stack(items) if items else some.new_zeros(0, *some.shape[1:]))
    counts = torch.tensor([len(row) for row in rows], device=some.device)
    return pad_sequence(rows, batch_first=True), counts


def _continue_media(context: AdapterContext, previous: AdapterContext) -> None:
    """Media of the passes before, then those that this pass adds."""
    if previous.media is None or previous.media_counts is None:
        return
    if context.media is None or context.media_counts is None:
        context.media, context.media_counts = previous.media, previous.media_counts
        context.media_values = previous.media_values
        return
    joined = [
        torch.cat([old[:num_old], new[:num_new]])
        for old, num_old, new, num_new in zip(
            previous.media, previous.media_counts.tolist(), context.media, context.media_counts.tolist(), strict=True
        )
    ]
    context.media = pad_sequence(joined, batch_first=True)
    context.media_counts = previous.media_counts + context.media_counts
