"""How much a client may send, and how slowly."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptkit.serving.errors import RequestError, error_response

_DRAINED = 4


class BodyMiddleware:
    """Reads the body of each request within limits, and hands it on whole.

    Args:
        app: The application behind it.
        max_bytes: Of a body.
        timeout_s: In which it must have come.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive, Headers(scope=scope).get("content-length", ""))
        except TimeoutError:
            late = f"the body did not come within {self._timeout_s:g} seconds."
            body = RequestError(late, status=408, code="timeout", headers={"Connection": "close"})
        if isinstance(body, RequestError):
            await error_response(body)(scope, receive, send)
        elif body is not None:
            await self.app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive, announced: str) -> bytes | RequestError | None:
        """The body; an error where it is too large; None where the client is gone.

        Of what is too large some is read and dropped: many clients read no response before they have sent everything.
        """
        chunks: list[bytes] = []
        num_bytes, more = 0, True
        too_large = announced.isdecimal() and int(announced) > self._max_bytes
        while more and num_bytes <= _DRAINED * self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            num_bytes += len(chunk)
            too_large = too_large or num_bytes > self._max_bytes
            chunks.append(chunk)
            if too_large:
                chunks.clear()
        if too_large:
            limit = f"the body is larger than the limit of {self._max_bytes:,} bytes."
            return RequestError(limit, status=413, code="body_too_large", headers={"Connection": "close"})
        return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
