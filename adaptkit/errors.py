"""What can go wrong, and the words that say so.

Every error a user can cause is an `AdaptkitError`. The library raises; only `adaptkit.cli` prints and
chooses an exit code: 2 for a user's mistake, 1 (`RunError`) for a run that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdaptkitError(Exception):
    """Base class of everything adaptkit raises on purpose."""

    exit_code = 2


class RecipeError(AdaptkitError):
    """A recipe, or a setting given on the command line, is wrong."""


class PluginError(AdaptkitError):
    """A plugin is missing, broken, or clashes with another."""


class DataError(AdaptkitError):
    """A data file, a sample, or a batch is wrong.

    Attributes:
        kind: What is wrong, for those who count: `missing_media`, `tag_count` and the like; `other` where whoever
            raises it does not say.
    """

    def __init__(self, *args: object, kind: str = "other") -> None:
        super().__init__(*args)
        self.kind = kind


class ModelError(AdaptkitError):
    """A model, a checkpoint, or a decoder's structure does not fit."""


class RunError(AdaptkitError):
    """A run failed for a reason that is not in its input (disk full, diverged loss, changed base)."""

    exit_code = 1


class RunStoppedError(RunError):
    """A run was asked to stop, and has saved what it needs to go on; 143 is what shells report for SIGTERM."""

    exit_code = 143


def nearest_name(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `name`, or None where nothing is close."""
    matches = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, choices: Iterable[str], *, hint: str = "") -> str:
    """Say that `name` is unknown, with the nearest valid name and the list of valid ones.

    Args:
        kind: What was named, in the singular: `"projector"`.
        name: What the user wrote.
        choices: The valid names.
        hint: A closing sentence: where to look further.
    """
    known = sorted(str(choice) for choice in choices)
    nearest = nearest_name(name, known)
    parts = [f"no {kind} named {name!r}."]
    if nearest:
        parts.append(f"Did you mean {nearest!r}?")
    parts.append(f"Known: {', '.join(known) if known else 'none'}.")
    if hint:
        parts.append(hint)
    return " ".join(parts)
