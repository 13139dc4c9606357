"""Putting encoder features where the prompt left placeholders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.errors import DataError


@dataclass
class ProjectedFeatures:
    """Features of one modality at the decoder's width, ready to be spliced.

    Attributes:
        tensor: All features in reading order, row after row, `(num_features, hidden)`.
        num_items: How many items they came from.
    """

    tensor: Tensor
    num_items: int


def splice_features(
    inputs_embeds: Tensor, placeholder_mask: Tensor, features: Tensor, *, modality: str, num_items: int
) -> Tensor:
    """Put encoder features where the prompt left placeholders.

    Args:
        inputs_embeds: Token embeddings, `(batch, seq, hidden)`.
        placeholder_mask: True at each placeholder, `(batch, seq)`.
        features: Projected features in reading order, `(num_features, hidden)`.
        modality: Whose features these are, for the error.
        num_items: How many items the features came from, for the error.

    Returns:
        A new tensor shaped like `inputs_embeds`; the input is unchanged.

    Raises:
        DataError: Placeholder and feature counts differ.
    """
    check_counts(int(placeholder_mask.sum()), features.shape[0], modality=modality, num_items=num_items)
    mask = placeholder_mask.unsqueeze(-1).expand_as(inputs_embeds)
    return inputs_embeds.masked_scatter(mask, features.to(inputs_embeds.device, inputs_embeds.dtype))


def check_counts(num_placeholders: int, num_features: int, *, modality: str, num_items: int) -> None:
    """Raise a `DataError` that names both counts where they differ."""
    if num_placeholders == num_features:
        return
    items = "1 item" if num_items == 1 else f"{num_items} items"
    raise DataError(
        f"the prompts hold {num_placeholders} {modality} placeholders, but the features given fill {num_features} "
        f"positions ({items}). The processor writes one placeholder per position: pass its input_ids and its features "
        "together, in the same order, untruncated."
    )


def expand_for_beams(features: Tensor, counts: Tensor, expand_size: int) -> Tensor:
    """Repeat each row's features as often as generation repeats the row.

    Args:
        features: `(num_features, hidden)`, row after row.
        counts: Features of each row, `(batch,)`.
        expand_size: Copies of each row, put next to each other.

    Returns:
        `(num_features * expand_size, hidden)`.
    """
    rows = torch.split(features, counts.tolist())
    return torch.cat([row for row in rows for _ in range(expand_size)])


def keep_last_positions(features: Tensor, placeholder_mask: Tensor, num_last: int) -> Tensor:
    """Features of those placeholders that lie in the last `num_last` columns of `placeholder_mask`."""
    columns = torch.arange(placeholder_mask.shape[1], device=placeholder_mask.device)
    recent = (columns >= placeholder_mask.shape[1] - num_last).expand_as(placeholder_mask)
    return features[recent[placeholder_mask].to(features.device)]
