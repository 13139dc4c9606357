"""The HTTP application over one session."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from adaptkit import __version__
from adaptkit.errors import unknown_name
from adaptkit.inference import Answer
from adaptkit.inference.routing import AUTO, TEXT
from adaptkit.inference.sampling import DEFAULT_MAX_NEW_TOKENS
from adaptkit.serving.answering import Answerer, Answering, Submit
from adaptkit.serving.auth import ApiKeyMiddleware
from adaptkit.serving.errors import RequestError, add_error_handlers
from adaptkit.serving.limits import BodyMiddleware
from adaptkit.serving.media import MediaReader, check_text
from adaptkit.serving.metrics import Metrics, ResponsesMiddleware
from adaptkit.serving.responses import ChatForm, TextForm, model_card, usage_of
from adaptkit.serving.schema import ChatRequest, CompletionRequest, GenerationRequest
from adaptkit.serving.settings import ServerSettings
from adaptkit.serving.streaming import EventStream


def create_app(session: Answerer, settings: ServerSettings | None = None) -> FastAPI:
    """An OpenAI-compatible application, for any ASGI server.

    Args:
        session: What answers; whoever opened it closes it.
        settings: Limits and what else a server allows.
    """
    settings = settings or ServerSettings()
    app = FastAPI(title="adaptkit", version=__version__, docs_url=None, redoc_url=None)  # their pages load from afar
    endpoints = _Endpoints(session, settings)
    routes: dict[str, tuple[str, Callable[..., Any]]] = {
        "/v1/models": ("GET", endpoints.models),
        "/v1/models/{name}": ("GET", endpoints.model),
        "/v1/chat/completions": ("POST", endpoints.chat),
        "/v1/completions": ("POST", endpoints.complete),
        "/health": ("GET", endpoints.health),
        "/metrics": ("GET", endpoints.metrics_text),
    }
    for path, (method, endpoint) in routes.items():
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    add_error_handlers(app)
    # The last one added sees a request first
    app.add_middleware(BodyMiddleware, max_bytes=settings.max_body_bytes, timeout_s=settings.receive_timeout_s)
    if settings.api_key:
        app.add_middleware(ApiKeyMiddleware, api_key=settings.api_key)
    app.add_middleware(ResponsesMiddleware, metrics=endpoints.metrics, paths=list(routes))
    return app


class _Endpoints:
    def __init__(self, session: Answerer, settings: ServerSettings) -> None:
        self._session, self._settings = session, settings
        takes = session.modalities
        kinds = list(dict.fromkeys(kind for names in takes.values() for kind in names))
        self._reader = MediaReader(kinds, settings)
        self._cards = {n: model_card(n, m, int(time.time())) for n, m in {AUTO: kinds, **takes}.items()}
        self.metrics = Metrics(session.status)

    async def models(self) -> dict[str, Any]:
        """The workflows, the base as `text`, and `auto`."""
        return {"object": "list", "data": list(self._cards.values())}

    async def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        return self._cards[self._known(name)]

    async def health(self) -> dict[str, Any]:
        """Whether the server takes requests."""
        return {"status": "ok"}

    async def metrics_text(self) -> Response:
        """What Prometheus reads."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def chat(self, body: ChatRequest, client: Request) -> Response:
        """Answer a conversation."""
        workflow = self._known(body.model)

        def prepare() -> list[Submit]:
            messages = self._reader.read(body.messages)
            return [functools.partial(self._session.submit, messages, workflow, **o) for o in self._options(body)]

        return await self._answer(body, prepare, ChatForm, client)

    async def complete(self, body: CompletionRequest, client: Request) -> Response:
        """Continue a text, or several."""
        workflow = TEXT if body.model == AUTO else self._known(body.model)
        submit = self._session.submit_text

        def prepare() -> list[Submit]:
            check_text(body.prompts, self._settings, "prompt")
            options = self._options(body, len(body.prompts))
            return [functools.partial(submit, text, workflow, **o) for text in body.prompts for o in options]

        return await self._answer(body, prepare, TextForm, client)

    async def _answer(
        self,
        body: GenerationRequest,
        prepare: Callable[[], Sequence[Submit]],
        form_of: Callable[[str], ChatForm | TextForm],
        client: Request,
    ) -> Response:
        answering = Answering(self._settings.request_timeout_s)
        await answering.submit(prepare)
        form = form_of(answering.requests[0].workflow)
        if body.stream:
            end = functools.partial(self.metrics.record, answering)
            return EventStream(
                answering, form, num_choices=body.num_choices, includes_usage=body.includes_usage, on_end=end
            )
        answers: list[Answer] = []
        problem: BaseException | None = None
        try:
            answers = await answering.answers(client)
        except Exception as error:
            problem = error
            raise
        finally:
            self.metrics.record(answering, answers, problem)
        return JSONResponse(form.whole(answers, usage_of(answers, body.num_choices)))

    def _known(self, name: str) -> str:
        if name not in self._cards:
            message = unknown_name("model", name, self._cards)
            raise RequestError(message, status=404, param="model", code="model_not_found")
        return name

    def _options(self, body: GenerationRequest, num_prompts: int = 1) -> list[dict[str, Any]]:
        """Options of a session for each answer to a prompt."""
        settings = self._settings
        if body.num_choices * num_prompts > settings.max_choices:
            raise RequestError(
                f"n: {body.num_choices * num_prompts} answers in one request, more than the limit of "
                f"{settings.max_choices}.",
                param="n",
            )
        base = self._session.workflows[TEXT]
        num_ids = base.config.get_text_config(decoder=True).vocab_size
        if any(int(token) >= num_ids for token in body.logit_bias or ()):
            raise RequestError(f"logit_bias: token ids are below {num_ids}.", param="logit_bias")
        limit = {}
        if settings.max_tokens is not None:
            if (body.wanted_tokens or 0) > settings.max_tokens:
                wanted = f"max_tokens: {body.wanted_tokens} is more than the limit of {settings.max_tokens}."
                raise RequestError(wanted, param="max_tokens")
            usual = getattr(base.generation_config, "max_new_tokens", None) or DEFAULT_MAX_NEW_TOKENS
            limit = {"max_new_tokens": min(usual, settings.max_tokens)}
        return [limit | body.options(choice) for choice in range(body.num_choices)]
