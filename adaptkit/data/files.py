"""Names of many files in one: braces, wildcards and folders."""

from __future__ import annotations

import glob
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from adaptkit.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_FILES = 1_000_000


def find_files(root: Path, pattern: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that a pattern names, in its order; those of a wildcard or a folder in the order of their names.

    Args:
        root: Folder that the pattern is relative to.
        pattern: A path, in which `{000..012}` and `{a,b}` stand for several and `*`, `?` and `[]` are wildcards; or a
            folder.
        suffixes: Endings of the files of a folder.

    Raises:
        DataError: One of them is not there, or the pattern names none.
    """
    found: list[Path] = []
    for name in _expanded(pattern):
        path = root / name
        if path.is_dir():
            matches = sorted(
                child for child in path.iterdir() if child.name.lower().endswith(suffixes) and child.is_file()
            )
        elif glob.has_magic(name) and not path.is_file():
            matches = sorted(match for match in matching(root, name) if match.is_file())
        else:
            matches = [path] if path.is_file() else []
        if not matches:
            what = f"no {' or '.join(suffixes)} file in the folder" if path.is_dir() else "no data file"
            raise DataError(f"{what} {path}: put it there, or set the data's path, or data_root")
        found += matches
    return found


def matching(root: Path, name: str) -> Iterator[Path]:
    """What a name with wildcards matches, below a folder where it is not absolute."""
    anchor = Path(name).anchor
    return Path(anchor).glob(name.removeprefix(anchor)) if anchor else root.glob(name)


def _expanded(pattern: str) -> Iterator[str]:
    pieces = _BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _choices(piece, pattern) for i, piece in enumerate(pieces)]
    if len(pieces) > 1 and math.prod(map(len, choices)) > MAX_FILES:
        raise DataError(f"{pattern!r:.200} names more than {MAX_FILES:,} files")
    return map("".join, itertools.product(*choices))


def _choices(inside: str, pattern: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    if not 0 <= int(last) - int(first) < MAX_FILES:
        raise DataError(f"{pattern!r:.200}: {{{inside}}} must run from a number to a larger one, at most {MAX_FILES:,}")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
