"""uvicorn as `adaptkit serve` runs it."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from adaptkit.errors import RunError
from adaptkit.serving.settings import ServerSettings


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """A port that is taken at once, and what answers there while `run` runs.

    Args:
        host: Name or address to listen on.
        port: 0 takes a free one.
        settings: Time limits.

    Attributes:
        url: Where clients find it.

    Raises:
        RunError: The port is taken, or the host is none of this machine.
    """

    def __init__(self, host: str, port: int, settings: ServerSettings) -> None:
        self._socket = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}"
        self._settings = settings
        self._server: uvicorn.Server | None = None
        self._stopped = False

    def run(self, app: Any) -> None:
        """Serve an ASGI application until SIGTERM, Ctrl-C or `stop`; what runs then is finished first."""
        settings = self._settings
        protocol = type("Protocol", (_TimedProtocol,), {"head_timeout_s": settings.receive_timeout_s})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=math.ceil(settings.request_timeout_s),
        )
        self._server = uvicorn.Server(config)
        self._server.should_exit = self._stopped
        # uvicorn raises the signals that stopped it once more, when nothing is left to do
        with signals_set(threading.Event()):
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Take no further connections, finish what runs, and let `run` return; from any thread."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True


class _TimedProtocol(H11Protocol):
    """HTTP whose clients must send the head of a request within a time; the body has its own."""

    head_timeout_s: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._follow_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timer()
        super().connection_lost(exc)

    def _follow_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._end_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"cannot listen on {host}, port {port}: {reason}. Choose others (--host, --port).") from error


@contextmanager
def signals_set(event: threading.Event) -> Iterator[threading.Event]:
    """Let SIGTERM and Ctrl-C set an event, and do nothing else, while the context lasts."""
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: event.set()) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
