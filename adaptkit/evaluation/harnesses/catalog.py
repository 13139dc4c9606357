"""Which harness has a task, and whether it can run here: known before models and data are loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.stock_tasks import HARNESSES, StockTask, find_tasks, task_files
from adaptkit.plugin_manager import get_plugin_manager

PREFIXES = {"lm": "lm-eval", "lmms": "lmms-eval"}
"""What stands before a name, `lmms:chartqa`, to choose a harness."""


@dataclass(frozen=True)
class HarnessTask:
    """A task, group or tag of a harness.

    Attributes:
        asked: What the user wrote.
        name: As the harness knows it.
        harness: `lm-eval` or `lmms-eval`.
        leaves: The tasks that it stands for.
        note: Why it is another than the one that was asked for.
    """

    asked: str
    name: str
    harness: str
    leaves: tuple[StockTask, ...]
    note: str = ""

    @property
    def has_media(self) -> bool:
        """Whether its questions come with media."""
        return any(leaf.has_media for leaf in self.leaves)


def find_harness_task(asked: str, include: Sequence[Path] = ()) -> HarnessTask:
    """The task of a name, which may begin with the harness that is meant: `lm:mmlu`, `lmms:mme`.

    Text is lm-eval's and what comes with media lmms-eval's, where both have a name.

    Raises:
        DataError: No harness has it.
    """
    prefix, _, rest = asked.partition(":")
    harness, name = (PREFIXES[prefix], rest) if prefix in PREFIXES and rest else (None, asked)
    leaves = find_tasks(name, harness, include)
    if not leaves:
        raise DataError(_unknown(asked, name, harness, include))
    return HarnessTask(asked, name, leaves[0].harness, tuple(leaves))


def static_variant(task: HarnessTask, include: Sequence[Path] = ()) -> HarnessTask | None:
    """The variant of a task that asks no judge, where there is one."""
    leaves = find_tasks(f"{task.name}_static", task.harness, include)
    return replace(task, name=f"{task.name}_static", leaves=tuple(leaves)) if leaves else None


def _unknown(asked: str, name: str, harness: str | None, include: Sequence[Path]) -> str:
    harnesses = [harness] if harness else list(HARNESSES)
    words: Iterable[str] = {word for one in harnesses for word in task_files(one, tuple(include)).candidates}
    near = difflib.get_close_matches(name, words, n=8, cutoff=0.7)
    own = difflib.get_close_matches(name, get_plugin_manager().names("evaluation task"), n=1, cutoff=0.7)
    near = [*own, *(word for word in near if find_tasks(word, harness, include))][:3]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"no task {asked!r} is among adaptkit's, or in {' or '.join(harnesses)}.{hint}"
