"""The API key, which clients send as a bearer token."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from adaptkit.serving.errors import RequestError, error_response

OPEN_PATHS = ("/health",)
"""What load balancers ask without a key."""


class ApiKeyMiddleware:
    """Refuses requests without the key before anything of them is read.

    Args:
        app: The application behind it.
        api_key: The key.
    """

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self.app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._holds_key(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        refused = RequestError(
            "the API key is missing or wrong: send it as the header Authorization: Bearer KEY.",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(refused)(scope, receive, send)

    def _holds_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self._key)
