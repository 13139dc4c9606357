"""Rows on which a stage is validated, and losses added up by what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEXT = "text"
"""What a row without media counts as."""

Kind = tuple[str, str]
"""A dataset, and a modality that its rows hold, or nothing for all of its rows."""


@dataclass(frozen=True)
class ValidationData:
    """Held-out rows of several datasets.

    Attributes:
        dataset: Indexed by `order`.
        names: Dataset of each index.
        order: In which rows are read.
        collator: Makes the model's keyword arguments of a list of rows.
    """

    dataset: Any
    names: Sequence[str]
    order: Sequence[int]
    collator: Callable[[list[Any]], Any]

    def kinds(self, index: int, row: Mapping[str, Any]) -> list[Kind]:
        """What a row counts for: its dataset as a whole, and each modality that it holds, or text."""
        name = self.names[index]
        held = {modality for modality, _ in row.get("media", ())} or {TEXT}
        return [(name, ""), *((name, kind) for kind in sorted(held))]


@dataclass
class TokenScores:
    """Sums over supervised tokens.

    Attributes:
        loss: Of their cross-entropies.
        hits: How many were the likeliest.
        tokens: How many there are.
        rows: How many rows they come from.
    """

    loss: float = 0.0
    hits: int = 0
    tokens: int = 0
    rows: int = 0

    def add(self, other: TokenScores) -> None:
        """Count another's, too."""
        self.loss += other.loss
        self.hits += other.hits
        self.tokens += other.tokens
        self.rows += other.rows

    def means(self) -> dict[str, float]:
        """Numbers for a log."""
        tokens = max(1, self.tokens)
        return {"loss": self.loss / tokens, "token_accuracy": self.hits / tokens}


def merged(parts: Iterable[Mapping[Kind, TokenScores]]) -> dict[Kind, TokenScores]:
    """Sums over several processes, in their order, so that it decides no rounding."""
    sums: dict[Kind, TokenScores] = {}
    for part in parts:
        for kind, scores in part.items():
            sums.setdefault(kind, TokenScores()).add(scores)
    return dict(sorted(sums.items()))


def as_metrics(sums: Mapping[Kind, TokenScores]) -> dict[str, float]:
    """Flat numbers: of all rows, of each dataset, of each modality, and of each modality of a mixed dataset."""
    totals: dict[str, TokenScores] = {"": TokenScores()}
    for (name, kind), scores in sums.items():
        if not kind:
            totals[""].add(scores)
            totals[f"data/{name}/"] = scores
        else:
            totals.setdefault(f"modality/{kind}/", TokenScores()).add(scores)
            if sum(other == name for other, _ in sums) > 2:
                totals[f"data/{name}/{kind}/"] = scores
    named = ((place, total.means()) for place, total in totals.items())
    size = {"validation/rows": totals[""].rows, "validation/tokens": totals[""].tokens}
    return {f"validation/{place}{key}": value for place, means in named for key, value in means.items()} | size
