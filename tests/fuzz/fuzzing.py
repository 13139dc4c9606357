"""How the commands that try damaged data end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from rich.table import Table

from adaptkit.errors import inert_text
from adaptkit.terminal import Console

_NUM_SHOWN = 3

Failures = Sequence[tuple[int, str]]
"""Number and traceback of samples that ended otherwise than in data or a data error."""


def fuzzing_console() -> Console:
    """The terminal, or wide lines where the output goes to a file."""
    return Console(width=None if sys.stdout.isatty() else 160)


def end_with(console: Console, table: Table, option: str, seed: int, failures: Mapping[str, Failures]) -> NoReturn:
    """Print what became of all samples and how to try failures again; exit with 1 if there are any.

    Args:
        console: Where to.
        table: Of the samples.
        option: The command's option that chooses what is tried, such as `--format`.
        seed: Of the samples.
        failures: By what was tried.
    """
    console.print(table)
    for name, found in failures.items():
        for number, text in found[:_NUM_SHOWN]:
            console.print(f"{name}, seed {seed}, sample {number}: {option} {name} --seed {seed} --only {number}")
            console.print(inert_text(text), highlight=False)
    sys.exit(1 if any(failures.values()) else 0)
