"""Answers as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from adaptkit.inference import Answer
from adaptkit.serving.answering import Answering
from adaptkit.serving.errors import as_request_error, error_body
from adaptkit.serving.responses import ChatForm, TextForm, usage_of


class EventStream(StreamingResponse):
    """Server-sent events of an answer; they end, and free its places, when the client goes.

    Args:
        answering: Submitted already, so that what is wrong with the request has its own status.
        form: The JSON of an event.
        num_choices: Answers to each prompt.
        includes_usage: Whether the stream ends with the usage.
        on_end: Called at the end with the answers that were finished, and with the error if there was one.
    """

    def __init__(
        self,
        answering: Answering,
        form: ChatForm | TextForm,
        *,
        num_choices: int,
        includes_usage: bool,
        on_end: Callable[[list[Answer], BaseException | None], Any],
    ) -> None:
        self._answering, self._form = answering, form
        self._num_choices, self._includes_usage = num_choices, includes_usage
        self._answers: dict[int, Answer] = {}
        self._error: BaseException | None = None
        self._on_end = on_end
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.cancel()
            self._on_end(list(self._answers.values()), self._error)

    async def _events(self) -> AsyncIterator[str]:
        for index in range(len(self._answering.requests)):
            if first := self._form.first(index):
                yield _event(first)
        try:
            async for index, event in self._answering.events():
                if isinstance(event, Answer):
                    self._answers[index] = event
                    yield _event(self._form.last(index, event))
                elif event.text or event.logprobs:
                    yield _event(self._form.piece(index, event))
        except Exception as error:
            self._error = error
            yield _event(error_body(as_request_error(error)))
            return
        if self._includes_usage:
            answers = [self._answers[index] for index in sorted(self._answers)]
            yield _event(self._form.usage(usage_of(answers, self._num_choices)))
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
