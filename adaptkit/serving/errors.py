"""Errors as OpenAI's clients read them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from adaptkit.errors import AdaptkitError, DataError, RunError
from adaptkit.inference import QueueFullError

logger = logging.getLogger(__name__)

_UNION_MEMBER = re.compile(r"str|list\[.*\]|dict\[.*\]|(function|constrained)-.*")
"""What pydantic adds to the place of a field that may have several types."""
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(AdaptkitError):
    """A request that is refused.

    Attributes:
        status: The HTTP status.
        param: The field that is wrong.
        code: A word for programs.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def as_request_error(error: BaseException) -> RequestError:
    """What a client is told of an error: all of the user's own, nothing of the inside of others."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, QueueFullError):
        wait = {"Retry-After": str(math.ceil(error.retry_after_s))}
        return RequestError(str(error), status=429, code="queue_full", headers=wait)
    if isinstance(error, DataError):
        return RequestError(str(error))
    if isinstance(error, RunError):
        return RequestError(str(error), status=503, code="unavailable")
    logger.error("a request failed", exc_info=error)
    if isinstance(error, AdaptkitError):
        return RequestError(str(error), status=500, code="server_error")
    return RequestError("the server failed at this request; its log says more.", status=500, code="server_error")


def error_body(error: RequestError) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_response(error: BaseException) -> JSONResponse:
    """The response that tells of an error."""
    refused = as_request_error(error)
    return JSONResponse(error_body(refused), status_code=refused.status, headers=refused.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in OpenAI's form."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        return error_response(error)

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = error.detail or HTTPStatus(error.status_code).phrase
        return error_response(RequestError(message, status=error.status_code, headers=error.headers))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(_of_validation(error))

    app.add_exception_handler(AdaptkitError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, known)


def _of_validation(error: RequestValidationError) -> RequestError:
    deepest = max(error.errors(), key=lambda entry: len(entry["loc"]))  # of a union, the member that fits best
    if deepest["type"] == "json_invalid":
        where = f"{deepest['ctx']['error']} at character {deepest['loc'][-1]}"
        return RequestError(f"the body is not valid JSON: {where}.")
    param = ".".join(str(part) for part in deepest["loc"][1:] if not _UNION_MEMBER.fullmatch(str(part)))
    if not param and deepest["type"] in ("model_attributes_type", "model_type", "missing"):
        return RequestError("the body must be a JSON object, sent with the header Content-Type: application/json.")
    message = deepest["msg"].removeprefix("Value error, ")
    return RequestError(f"{param}: {message}" if param else message, param=param or None)
