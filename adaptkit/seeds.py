"""Which numbers may be seeds: those that Python, NumPy and PyTorch all take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adaptkit.errors import RecipeError

MAX_SEED = 2**32 - 1

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""A seed as an option of recipes and plugins."""


def check_seed(seed: int, what: str = "seed") -> int:
    """The seed itself, where it is one.

    Raises:
        RecipeError: It is not a whole number from 0 to `MAX_SEED`; the message names `what`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise RecipeError(f"{what} is {seed!r}; it should be a whole number from 0 to {MAX_SEED:,}.")
    return seed
