"""The outcome of checking one claim of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from adaptkit.errors import AdaptkitError
from adaptkit.files.failures import explain_failure
from adaptkit.files.loading import cause

HOLDS, DIFFERS, UNKNOWN = "holds", "differs", "not checked"


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        claim: What is claimed.
        status: `holds`, `differs`, or `not checked` where there is nothing to compare with.
        details: What was compared, what differs, or why it was not checked.
    """

    claim: str
    status: str
    details: Sequence[str] = field(default_factory=tuple)


def compared(claim: str, differences: Iterable[str], what: str) -> Finding:
    """A finding of what differs, or else of what was compared."""
    found = list(differences)
    return Finding(claim, DIFFERS, found) if found else Finding(claim, HOLDS, [what])


def guarded(claim: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that cannot be finished, since something is damaged, has found a difference."""
    try:
        yield from list(check())
    except AdaptkitError as error:
        yield Finding(claim, DIFFERS, [str(error)])
    except Exception as error:
        if explain_failure(error) is not None:  # of the machine: no disk, no memory
            raise
        yield Finding(claim, DIFFERS, [cause(error)])
