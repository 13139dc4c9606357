"""The batch whose memory is predicted: conversations as long as a stage allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.errors import RecipeError

MAX_POSITIONS = 1 << 26


@dataclass(frozen=True)
class BatchShape:
    """How large a batch of one device is.

    Attributes:
        num_conversations: In a forward pass.
        length: Positions of each.
        packing: Whether they share one row.
        supervised: Share of tokens that are supervised.
    """

    num_conversations: int
    length: int
    packing: bool = False
    supervised: float = 1.0

    def __post_init__(self) -> None:
        if self.num_conversations < 1 or self.length < 2:
            raise RecipeError(
                f"a batch of {self.num_conversations} conversations of {self.length} positions trains nothing: give 1 "
                "or more, of 2 positions or more."
            )
        if self.num_conversations * self.length > MAX_POSITIONS:
            raise RecipeError(
                f"a batch of {self.num_conversations:,} conversations of {self.length:,} positions is more than any "
                f"device holds, and {MAX_POSITIONS:,} positions are the most that are predicted."
            )
        if not 0 < self.supervised <= 1:
            raise RecipeError(
                f"a share of {self.supervised:g} of the words cannot be learned: give more than 0, up to 1."
            )


@dataclass(frozen=True)
class Medium:
    """One item of a modality.

    Attributes:
        placeholder_id: Stands at each of its positions.
        num_positions: Positions in the decoder.
        inputs: What the model is given for all conversations: encoder inputs or features.
    """

    placeholder_id: int
    num_positions: int
    inputs: Any


def build_batch(shape: BatchShape, media: Mapping[str, Medium]) -> tuple[dict[str, Any], int]:
    """A batch in which every conversation is as long as may be and begins with one item of each modality.

    Returns:
        Keyword arguments of the model, and how many positions are supervised.

    Raises:
        RecipeError: The items alone are longer than a conversation may be.
    """
    start = [medium.placeholder_id for medium in media.values() for _ in range(medium.num_positions)]
    num_words = shape.length - len(start)
    if num_words < 2:
        raise RecipeError(
            f"{shape.length} positions leave no room for words beside one item of each modality, which takes "
            f"{len(start)} ({', '.join(media)}). Give a larger max_length."
        )
    word = next(i for i in range(len(media) + 1) if i not in {m.placeholder_id for m in media.values()})
    row = torch.tensor([*start, *[word] * num_words])
    input_ids = row.repeat(shape.num_conversations, 1)
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    num_supervised = max(1, round(shape.supervised * num_words))
    labels[:, shape.length - num_supervised :] = word
    batch: dict[str, Any] = {"features": {name: medium.inputs for name, medium in media.items()}}
    if shape.packing:
        labels[:, 0] = IGNORE_INDEX
        lengths = [shape.length] * shape.num_conversations
        batch |= {"input_ids": input_ids.reshape(1, -1), "labels": labels.reshape(1, -1), "segment_lengths": lengths}
    else:
        batch |= {"input_ids": input_ids, "labels": labels, "attention_mask": _mask(input_ids)}
    return batch, num_supervised * shape.num_conversations


def _mask(input_ids: Tensor) -> Tensor:
    """All but one conversation end a position early, since a batch without padding is cheaper and rare."""
    mask = torch.ones_like(input_ids)
    mask[1:, -1] = 0
    return mask
