"""Properties of damaged files, tried by hypothesis."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st


def try_damage(check: Callable[[random.Random], None], in_suite: int, at_most: int | None = None) -> None:
    """Call a check with sources of randomness that hypothesis chooses, records and shrinks.

    Args:
        check: Makes damaged files and uses them; raises where they are not handled as they should.
        in_suite: Number of examples, unless a larger profile is loaded.
        at_most: Number of examples in any profile, of what is slow.
    """
    in_profile = in_suite if settings.get_current_profile_name() == "suite" else settings().max_examples
    chosen = settings(max_examples=min(in_profile, at_most or in_profile))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of what they find in damaged files
        chosen(given(st.randoms(use_true_random=False))(check))()
