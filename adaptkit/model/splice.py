"""Putting encoder features where the prompt left placeholders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.errors import DataError, ModelError


@dataclass
class ProjectedFeatures:
    """Features of one modality at the decoder's width, in reading order, row after row.

    Attributes:
        tensor: One entry for each placeholder: `(num_features, hidden)` where features are spliced in,
            `(num_items, positions, hidden)` where they stay in the context.
        num_items: How many items they came from.
    """

    tensor: Tensor
    num_items: int

    @classmethod
    def of(cls, items: Tensor | list[Tensor], feature_mode: str) -> ProjectedFeatures:
        """Arrange a projector's outputs.

        Args:
            items: `(num_items, positions, hidden)`, or a list of `(positions, hidden)` where positions vary.
            feature_mode: As a policy declares it.

        Raises:
            DataError: Items in the context take different numbers of positions.
        """
        if feature_mode == "splice":
            return cls(items.flatten(0, 1) if isinstance(items, Tensor) else torch.cat(items), len(items))
        if isinstance(items, list):
            lengths = sorted({item.shape[0] for item in items})
            if len(lengths) > 1:
                raise DataError(
                    f"items in the context must take equally many positions; these take {lengths}. A resampler as "
                    "projector makes them equal."
                )
            items = torch.stack(items)
        return cls(items, len(items))


def splice_features(inputs_embeds: Tensor, placeholder_mask: Tensor, features: ProjectedFeatures) -> Tensor:
    """Put encoder features where the prompt left placeholders, which must be as many (see `check_counts`).

    Args:
        inputs_embeds: Token embeddings, `(batch, seq, hidden)`.
        placeholder_mask: True at each placeholder, `(batch, seq)`.
        features: Projected features in reading order.

    Returns:
        A new tensor shaped like `inputs_embeds`; the input is unchanged.
    """
    mask = placeholder_mask.unsqueeze(-1).expand_as(inputs_embeds)
    return inputs_embeds.masked_scatter(mask, features.tensor.to(inputs_embeds.device, inputs_embeds.dtype))


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


def check_width(given: int, expected: int, modality: str) -> None:
    """Raise a `DataError` where encoded features are not those of a modality's encoder."""
    if given != expected:
        raise DataError(
            f"the encoded features given for {modality!r} are {given} wide, but its encoder gives features of width "
            f"{expected}. Pass those of this encoder, or its raw inputs without EncodedFeatures."
        )


def check_projected_width(given: int, expected: int, modality: str) -> None:
    """Raise a `ModelError` where a projector's outputs are not as wide as the embeddings that they stand among."""
    if given != expected:
        raise ModelError(
            f"the projector of {modality!r} gives features {given} wide, but the embeddings of the decoder are "
            f"{expected} wide. Give it a projector whose outputs are {expected} wide."
        )


def expand_for_beams(features: Tensor, counts: Tensor, expand_size: int) -> Tensor:
    """Repeat each row's features, of which `(batch,)` counts say how many they are, next to each other.

    `(num_features, ...)`, row after row, become `(num_features * expand_size, ...)`.
    """
    rows = torch.split(features, counts.tolist())
    return torch.cat([row for row in rows for _ in range(expand_size)])


def keep_last_positions(features: Tensor, placeholder_mask: Tensor, num_last: int) -> Tensor:
    """Features of those placeholders that lie in the last `num_last` columns of `placeholder_mask`."""
    columns = torch.arange(placeholder_mask.shape[1], device=placeholder_mask.device)
    recent = (columns >= placeholder_mask.shape[1] - num_last).expand_as(placeholder_mask)
    return features[recent[placeholder_mask].to(features.device)]
