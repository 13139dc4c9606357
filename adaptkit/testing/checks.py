"""Named checks, run until the first fails (in a plugin's tests) or all of them (for a table)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from adaptkit.testing.requirements import ContractError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Check:
    """One sentence of a contract.

    Attributes:
        title: A few words for a table.
        run: Raises `ContractError` where the sentence is broken; what it returns, if not None, says why it does
            not apply.
        essential: Whether those after it are skipped where it fails.
    """

    title: str
    run: Callable[[], str | None]
    essential: bool = False

    def __call__(self) -> str | None:
        """Run it; whatever else it raises is a broken contract too."""
        try:
            return self.run()
        except ContractError:
            raise
        except Exception as error:
            raise ContractError(f"{self.title}: raises {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        kind: Of the component, or `plugin`.
        name: Of the component or plugin.
        check: Its title.
        outcome: `passed`, `failed` or `skipped`.
        message: Why, where it did not pass.
    """

    kind: str
    name: str
    check: str
    outcome: str
    message: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def enforce(checks: Iterable[Check]) -> None:
    """Run checks in order.

    Raises:
        ContractError: By the first that fails.
    """
    for check in checks:
        check()


def collect(kind: str, name: str, checks: Iterable[Check]) -> list[CheckResult]:
    """Run all checks, but those that depend on one that failed."""
    results: list[CheckResult] = []
    blocked_by = ""
    for check in checks:
        if blocked_by:
            results.append(CheckResult(kind, name, check.title, SKIPPED, f"not run, since {blocked_by!r} failed"))
            continue
        try:
            reason = check()
        except ContractError as error:
            results.append(CheckResult(kind, name, check.title, FAILED, str(error)))
            blocked_by = check.title if check.essential else ""
        else:
            results.append(CheckResult(kind, name, check.title, SKIPPED if reason else PASSED, reason or ""))
    return results
