"""Who answers a chat: a session in this process here, a server in `adaptkit.serving.remote`; both look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from adaptkit.errors import DataError, unknown_name

AUTO = "auto"
"""Leaves the choice of the workflow to the media of the prompt."""

MAX_FILE_BYTES = 64 * 2**20
"""Most bytes of a file that a chat takes."""

Messages = Sequence[Mapping[str, Any]]
"""As transformers writes them; a medium is `{"type": modality, modality: bytes}`."""


class Reply(Protocol):
    """An answer while it is written: iterate over it for pieces of text.

    Attributes:
        workflow: Who answers; of a server it is certain once the first piece has come.
        finish_reason: `stop`, `length` or `cancelled`, once there are no more pieces.
    """

    @property
    def workflow(self) -> str: ...

    @property
    def finish_reason(self) -> str | None: ...

    def __iter__(self) -> Iterator[str]: ...

    def cancel(self) -> None:
        """Stop it, wherever it is; of a complete answer this changes nothing."""


class Backend(Protocol):
    """What answers messages.

    Attributes:
        choices: Names of what can be asked, the default first.
        modalities: Which media it takes; None where that is not known.
    """

    @property
    def choices(self) -> Sequence[str]: ...

    @property
    def modalities(self) -> Sequence[str] | None: ...

    def read(self, name: str, source: Any) -> Any:
        """Read a medium, to see whether it is one, and for who shows it.

        Raises:
            DataError: It is damaged, or none of this modality.
        """

    def ask(self, messages: Messages, workflow: str, options: Mapping[str, Any]) -> Reply:
        """Begin an answer.

        Args:
            messages: The conversation so far, a user's turn last.
            workflow: One of `choices`.
            options: Of generation, by transformers' names.

        Raises:
            AdaptkitError: There will be none; the message says why.
        """

    def close(self) -> None:
        """Give back what it holds."""


def check_choice(backend: Backend, workflow: str) -> str:
    """The workflow, where there is one of this name.

    Raises:
        DataError: There is none.
    """
    if workflow not in backend.choices:
        raise DataError(unknown_name("workflow", workflow, backend.choices))
    return workflow


class SessionBackend:
    """Answers in this process.

    Args:
        session: An `adaptkit.Session`, which is closed with the backend.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.choices = [AUTO, *session.workflows]
        self.modalities = list(dict.fromkeys(name for names in session.modalities.values() for name in names))

    def read(self, name: str, source: Any) -> Any:
        """Read a medium as the first workflow that takes it does."""
        if name not in self.modalities:
            hint = "This run takes no media." if not self.modalities else ""
            raise DataError(unknown_name("modality of this run", name, self.modalities, hint=hint))
        workflow = next(workflow for workflow, names in self._session.modalities.items() if name in names)
        return self._session.processor(workflow).modalities[name].modality.load(source)

    def ask(self, messages: Messages, workflow: str, options: Mapping[str, Any]) -> Reply:
        """Submit the messages to the session."""
        return SessionReply(self._session.submit(messages, workflow=workflow, **options))

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class SessionReply:
    """The answer of a session.

    Args:
        request: An `adaptkit.inference.Request`.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        self.workflow: str = request.workflow
        self.finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self._request:
            yield piece.text
        self.finish_reason = self._request.result().finish_reason

    def cancel(self) -> None:
        """Free its place in the batch."""
        self._request.cancel()
