"""Requests of a session, awaited without blocking the server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HTTPRequest

from adaptkit.inference import Answer, Piece
from adaptkit.inference.request import Event
from adaptkit.serving.errors import RequestError


class Submitted(Protocol):
    """A request on its way to an answer.

    Attributes:
        workflow: Which workflow answers.
    """

    @property
    def workflow(self) -> str: ...

    def cancel(self) -> None:
        """Free its place."""


class Answerer(Protocol):
    """What the application asks: a `Session`, or what forwards to one elsewhere."""

    @property
    def workflows(self) -> Mapping[str, Any]:
        """What stands for each model: its `config` and `generation_config` are read."""

    @property
    def modalities(self) -> Mapping[str, Sequence[str]]:
        """Modalities that each workflow takes."""

    def status(self) -> Mapping[str, Any]:
        """Numbers for the metrics."""

    def submit(
        self,
        messages: Sequence[Mapping[str, Any]],
        workflow: str = ...,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Submitted:
        """Queue a conversation."""

    def submit_text(
        self, text: str, workflow: str = ..., *, on_event: Callable[[Event], None] | None = None, **options: Any
    ) -> Submitted:
        """Queue a text to continue."""


Submit = Callable[..., Submitted]


class Answering:
    """The answers to one HTTP request.

    Args:
        timeout_s: Within which they must be finished.

    Attributes:
        requests: As submitted, one for each answer.
        first_token_s: When the first token came, counted from the HTTP request.
    """

    def __init__(self, timeout_s: float) -> None:
        self.requests: list[Submitted] = []
        self.first_token_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._timeout_s = timeout_s
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

    @property
    def seconds(self) -> float:
        """Time since the HTTP request came."""
        return self._loop.time() - self._started

    async def submit(self, prepare: Callable[[], Sequence[Submit]]) -> None:
        """Submit in another thread, as media are read and text is tokenised there: all requests, or none.

        Args:
            prepare: Gives a function for each answer that submits its request; it is called with `on_event`.
        """

        def work() -> None:
            for index, submit in enumerate(prepare()):
                self.requests.append(submit(on_event=functools.partial(self._put, index)))

        try:
            await run_in_threadpool(work)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Free the places of what is not finished."""
        for request in self.requests:
            request.cancel()

    async def events(self) -> AsyncIterator[tuple[int, Piece | Answer]]:
        """What comes of each answer, by its index, until all are finished.

        Raises:
            RequestError: The time is over.
            Exception: What went wrong with one of the requests.
        """
        num_unfinished = len(self.requests)
        while num_unfinished:
            try:
                index, event = await asyncio.wait_for(self._events.get(), self._timeout_s - self.seconds)
            except TimeoutError as error:
                limit = f"the answer took more than the limit of {self._timeout_s:g} seconds."
                raise RequestError(limit, status=504, code="timeout") from error
            if isinstance(event, BaseException):
                raise event
            if self.first_token_s is None:
                self.first_token_s = self.seconds
            num_unfinished -= isinstance(event, Answer)
            yield index, event

    async def answers(self, client: HTTPRequest) -> list[Answer]:
        """All answers; where the client goes before, they are given up.

        Raises:
            RequestError: The client is gone, or the time is over.
        """
        collecting = asyncio.ensure_future(self._collect())
        leaving = asyncio.ensure_future(_disconnected(client))
        try:
            await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                raise RequestError("the client is gone.", status=499)
            return collecting.result()
        finally:
            self.cancel()
            for task in (collecting, leaving):
                task.cancel()

    async def _collect(self) -> list[Answer]:
        found = {index: event async for index, event in self.events() if isinstance(event, Answer)}
        return [found[index] for index in range(len(self.requests))]

    def _put(self, index: int, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))


async def _disconnected(client: HTTPRequest) -> None:
    while (await client.receive())["type"] != "http.disconnect":
        pass
