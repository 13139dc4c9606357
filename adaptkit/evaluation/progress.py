"""How far an evaluation has come, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with questions answered, questions in all, and what is being asked."""


def unwatched(done: int, total: int, what: str) -> None:
    """Tell nobody."""


class QuestionCounter:
    """Adds up the questions answered.

    Args:
        progress: Called with the progress.
        total: Questions in all.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def on(self, what: str) -> Callable[[int], None]:
        """A function that counts further questions about something."""

        def advance(num: int) -> None:
            self._done += num
            self._progress(self._done, self._total, what)

        return advance
