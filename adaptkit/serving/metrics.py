"""Prometheus metrics of one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptkit.inference import Answer
from adaptkit.serving.answering import Answering

GAUGES = {
    "running": "Requests with a place in a batch.",
    "waiting": "Requests that wait for a place.",
    "max_batch_size": "Places in a batch.",
    "engines": "Processes of vLLM that run.",
}
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts what a server does.

    Args:
        status: Of the session; read when metrics are.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_StatusCollector(status))
        self.responses = self._counter("adaptkit_http_responses", "HTTP responses.", ["path", "status"])
        self._answers = self._counter("adaptkit_answers", "Answers, by how they ended.", ["workflow", "reason"])
        self._tokens = self._counter("adaptkit_tokens", "Tokens of finished answers.", ["workflow", "kind"])
        self._hits = self._counter(
            "adaptkit_prefix_hits", "Answers whose prompt began with one computed before.", ["workflow"]
        )
        self._seconds = self._histogram("adaptkit_answer_seconds", "From a request to the end of its answers.")
        self._first = self._histogram("adaptkit_first_token_seconds", "From a request to its first token.")

    def record(self, answering: Answering, answers: Sequence[Answer], error: BaseException | None) -> None:
        """Count the answers to a request; those that are not finished failed, or their client is gone."""
        for request in answering.requests[len(answers) :]:
            self._answers.labels(request.workflow, "error" if error else "cancelled").inc()
        for answer in answers:
            self._answers.labels(answer.workflow, answer.finish_reason).inc()
            for kind in ("prompt", "completion", "cached"):
                self._tokens.labels(answer.workflow, kind).inc(getattr(answer.usage, f"{kind}_tokens"))
            self._hits.labels(answer.workflow).inc(answer.usage.cached_tokens > 0)
        if answers:
            self._seconds.labels(answers[0].workflow).observe(answering.seconds)
        if answering.first_token_s is not None:
            self._first.labels(answering.requests[0].workflow).observe(answering.first_token_s)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help: str, labels: list[str]) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, ["workflow"], registry=self.registry, buckets=_SECONDS)


class _StatusCollector(Collector):
    """The numbers of a session's status."""

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Gauges of what is there now, and counters of what was done."""
        for name, value in self._status().items():
            if name in GAUGES:
                yield GaugeMetricFamily(f"adaptkit_session_{name}", GAUGES[name], value=value)
            elif isinstance(value, int | float):
                words = name.replace("_", " ")
                yield CounterMetricFamily(f"adaptkit_session_{name}", f"Since the start: {words}.", value=value)


class ResponsesMiddleware:
    """Counts responses.

    Args:
        app: The application behind it.
        metrics: Where.
        paths: That have a count of their own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self.app = app
        self._responses = metrics.responses
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path = scope.get("path", "")

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responses.labels(path if path in self._paths else "other", str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counted)
