"""How long work reports what it does. The command line shows it; everybody else may listen, or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from adaptkit.stage import StageConfig

Advance = Callable[..., None]
"""Called with the items done and in all, perhaps what is done: `(done, total)`, `(done, total, what)`."""


@dataclass(frozen=True)
class StageStart:
    """A stage that is about to train.

    Attributes:
        stage: Its settings.
        number: Its place among the stages: `"2/4"`.
        components: Parameters of each component of its workflow.
        num_items: Conversations, or packs of them, in an epoch; None where the data is not there.
        num_steps: Optimizer steps.
        num_processes: Processes that share each step.
    """

    stage: StageConfig
    number: str
    components: Mapping[str, int]
    num_items: int | None
    num_steps: int
    num_processes: int


@dataclass(frozen=True)
class TrainingProgress:
    """Where a stage stands.

    Attributes:
        stage: Its name.
        step: Optimizer steps done.
        num_steps: Optimizer steps in all.
        loss: The last one that was logged, if any.
        is_first_loss: Whether this report is of the first step's loss.
        is_end: Whether training ends here.
        seconds_left: Until the end of the stage, if that can be estimated.
        seconds_left_in_all: Until the end of later stages, too, where there are some.
        speed: Texts on throughput and memory, what matters most first; asking for them waits for the device.
        validation: How the last validation ended, or how far the present one is; nothing before the first.
    """

    stage: str
    step: int
    num_steps: int
    loss: float | None
    is_first_loss: bool
    is_end: bool
    seconds_left: float | None
    seconds_left_in_all: float | None
    speed: Callable[[], list[str]]
    validation: str = ""


class Reporter:
    """Listens to long work, and shows nothing; subclasses override what they show."""

    def message(self, text: str) -> None:
        """One line for the user."""

    def warning(self, text: str) -> None:
        """One line that the user should act upon."""

    def working(self, what: str) -> AbstractContextManager[object]:
        """Entered while something is done whose length is unknown."""
        return nullcontext()

    def progress(self, what: str) -> AbstractContextManager[Advance]:
        """Entered while many items are worked on; gives a function to call with how many are done."""
        return nullcontext(lambda done, total, what=what: None)

    def stage(self, start: StageStart) -> None:
        """A stage begins."""

    def training(self, stage: str) -> AbstractContextManager[Callable[[TrainingProgress], None]]:
        """Entered while a stage trains; gives a function to call at its start, after each step and at its end."""
        return nullcontext(lambda progress: None)
