"""Items of a dataset to a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.data.dataset import Item
from adaptkit.data.packing import unpacked
from adaptkit.interfaces import Batch, Media


class Collator:
    """Pads conversations to the longest, and gathers their media.

    Args:
        pad_token_id: Fills `input_ids`; the attention mask is 0 there.
        load_media: Batch of a modality's sources in reading order, row after row.
        padding_side: Where rows are filled.
        label_pad: Fills `labels`.
    """

    def __init__(
        self,
        pad_token_id: int,
        load_media: Callable[[str, list[Any]], Media],
        padding_side: Literal["left", "right"] = "right",
        label_pad: int = IGNORE_INDEX,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.load_media = load_media
        self.padding_side = padding_side
        self.label_pad = label_pad

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Join items; `features` has an entry for each modality that occurs in them."""
        shape = (len(items), max(item["length"] for item in items))
        input_ids = torch.full(shape, self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, self.label_pad, dtype=torch.long)
        for row, item in enumerate(items):
            length = item["length"]
            place = slice(shape[1] - length, None) if self.padding_side == "left" else slice(length)
            input_ids[row, place] = torch.as_tensor(item["input_ids"])
            attention_mask[row, place] = 1
            labels[row, place] = torch.as_tensor(item["labels"])
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "features": self._features(items),
        }

    def _features(self, items: Sequence[Item]) -> dict[str, Media]:
        media: dict[str, list[Any]] = {}
        for item in items:
            for modality, source in item["media"]:
                media.setdefault(modality, []).append(source)
        return {modality: self.load_media(modality, sources) for modality, sources in media.items()}


class PackedCollator(Collator):
    """Joins the conversations of packs into one row without padding, and says where each begins and ends."""

    def __call__(self, packs: Sequence[Sequence[Item]]) -> Batch:  # type: ignore[override]
        """Join packs; the first position of each conversation is not a target, since another stands before it."""
        items = unpacked(packs)
        labels = [torch.as_tensor(item["labels"]).clone() for item in items]
        for conversation in labels:
            conversation[0] = self.label_pad
        return {
            "input_ids": torch.cat([torch.as_tensor(item["input_ids"]) for item in items]).unsqueeze(0),
            "labels": torch.cat(labels).unsqueeze(0),
            "segment_lengths": [item["length"] for item in items],
            "features": self._features(items),
        }
