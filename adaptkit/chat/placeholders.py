"""Placeholders: the ids that stand where a medium's features will be, one for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptkit.errors import DataError

Brackets = tuple[Sequence[int], Sequence[int]]
"""Ids before and after the placeholders of a medium."""


def expand_placeholder(placeholder_id: int, num_positions: int, brackets: Brackets | None = None) -> list[int]:
    """The ids of one medium: its placeholder once for each feature position, between its brackets."""
    before, after = brackets or ((), ())
    return [*before, *[placeholder_id] * num_positions, *after]


def refuse_placeholders(ids: Sequence[int], placeholder_ids: Mapping[str, int]) -> None:
    """Refuse text that holds a placeholder.

    Raises:
        DataError: An id is the placeholder of a modality.
    """
    for modality, placeholder_id in placeholder_ids.items():
        if placeholder_id in ids:
            raise DataError(
                f"the text contains the placeholder token of modality {modality!r} (id {placeholder_id}): "
                "media are given as parts of their own, never as text. Remove the token from the text"
            )
