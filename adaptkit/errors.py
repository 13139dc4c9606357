"""What can go wrong, and the words that say so.

Every error a user can cause is an `AdaptkitError`. The library raises; only `adaptkit.cli` prints and
chooses an exit code: 2 for a user's mistake, 1 (`RunError`) for a run that failed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

DISTRIBUTION = "inner-adaptkit"
"""What adaptkit is installed by: `adaptkit` on the package index is another project."""

# Control characters, line and paragraph separators, text direction, invisible characters, halves of surrogate pairs.
# The joiners U+200C and U+200D stay: scripts and emoji need them.
_ACTIVE = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_ACTIVE_CHARACTER = re.compile(f"[{_ACTIVE}]")
_ACTIVE_IN_TEXT = re.compile(f"(?![\n\t])[{_ACTIVE}]")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Lines(str):
    """Text of several lines, none of which holds anything that a terminal acts on."""

    def __str__(self) -> str:
        return self


def inert(text: object) -> str:
    """Text from elsewhere on one line, with everything that a terminal would act on escaped: `\\x1b`, `\\n`, `\\u202e`.

    What is inert already stays as it is, and so do `Lines`.
    """
    return text if isinstance(text, Lines) else _ACTIVE_CHARACTER.sub(lambda found: _escape(found[0]), str(text))


def inert_text(text: str, escape: Callable[[str], str] = _escape) -> Lines:
    """Text from elsewhere that keeps its own line breaks and tabs, and nothing else that a terminal acts on."""
    return Lines(_ACTIVE_IN_TEXT.sub(lambda found: escape(found[0]), text))


def join_lines(lines: Iterable[object]) -> Lines:
    """A message of several lines, each of which is inert."""
    return Lines("\n".join(map(inert, lines)))


_secrets: dict[str, str] = {}


def keep_secret(value: str, name: str) -> None:
    """Show a name in place of a value in all messages from here on."""
    _secrets[value] = name


def without_secrets(text: str) -> str:
    """A text with names in place of the values that `keep_secret` was told of."""
    shown = text
    for value in sorted(_secrets, key=len, reverse=True):
        shown = shown.replace(value, _secrets[value])
    return Lines(shown) if isinstance(text, Lines) else shown


class AdaptkitError(Exception):
    """Base class of everything adaptkit raises on purpose.

    Messages name files, keys and samples that others have written. They are inert: one line, unless `join_lines` made
    several. They hold no value that is to be kept secret.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(inert(arg) if isinstance(arg, str) else arg for arg in args))

    def __str__(self) -> str:
        return without_secrets(str(self.args[0]) if len(self.args) == 1 else super().__str__())


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


class ArgumentError(DataError, TypeError):
    """A keyword argument is unknown, or is one that cannot be honoured."""


class ModelError(AdaptkitError):
    """A model, a checkpoint, or a decoder's structure does not fit."""


class RunError(AdaptkitError):
    """A run failed for a reason that is not in its input (disk full, diverged loss, changed base)."""

    exit_code = 1


class RunStoppedError(RunError):
    """A run was asked to stop, and has saved what it needs to go on; 143 is what shells report for SIGTERM."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, without its closing full stop; the error's type where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def first_few(items: Sequence[str], number: int = 5, separator: str = ", ") -> str:
    """The first items of a list, and how many more there are."""
    more = f" and {len(items) - number} more" if len(items) > number else ""
    return separator.join(items[:number]) + more


def nearest_name(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `name`, or None where nothing is close."""
    matches = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.55)
    return matches[0] if matches else None


def wrong_type(what: str, needed: str, given: object) -> str:
    """Say that an argument is of another type than is needed; a class is told from its instances."""
    found = f"the class {given.__name__}, not an instance of it" if isinstance(given, type) else type(given).__name__
    return f"{what}: {needed} is needed; got {found}."


def unknown_name(kind: str, name: str, choices: Iterable[str], *, hint: str = "", nearest: str | None = None) -> str:
    """Say that `name` is unknown, with the nearest valid name and the list of valid ones.

    Args:
        kind: What was named, in the singular: `"projector"`.
        name: What the user wrote.
        choices: The valid names.
        hint: A closing sentence: where to look further.
        nearest: The nearest valid name, where another is meant than the one spelt most alike.
    """
    known = sorted(str(choice) for choice in choices)
    nearest = nearest or nearest_name(name, known)
    parts = [f"no {kind} named {name!r}."]
    if nearest:
        parts.append(f"Did you mean {nearest!r}?")
    parts.append(f"Known: {', '.join(known) if known else 'none'}.")
    if hint:
        parts.append(hint)
    return " ".join(parts)


def install_command(extra: str) -> str:
    """The command that installs adaptkit with one of its extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
