"""A server of OpenAI's protocol that says what a test wants, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Script:
    """What the server does.

    Attributes:
        pieces: Of each answer; the answering model is `vision`.
        models: What it lists; None for a server that lists nothing.
        modalities: Of each model; None for a server that does not tell.
        failure: Status and message instead of an answer.
        is_broken: Whether the connection ends within the answer.
        bodies: What it was asked.
        keys: With which `Authorization`.
    """

    pieces: tuple[str, ...] = ("three ", "shapes")
    models: tuple[str, ...] | None = ("text", "vision", "auto")
    modalities: tuple[str, ...] | None = None
    failure: tuple[int, str] | None = None
    is_broken: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def scripted_server() -> Iterator[Script]:
    """Serve on loopback for as long as the block lasts."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.keys.append(self.headers["Authorization"])
            if script.failure:
                return self._fail(*script.failure)
            if script.models is None or self.path != "/v1/models":
                return self._fail(404, "no such page")
            models = [{"id": name, "object": "model", "created": 0, "owned_by": ""} for name in script.models]
            told = {} if script.modalities is None else {"modalities": script.modalities}
            models = [{**model, **told} for model in models]
            return self._send(200, {"object": "list", "data": models})

        def do_POST(self) -> None:
            script.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if script.failure:
                return self._fail(*script.failure)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for piece in script.pieces:
                self._event({"delta": {"content": piece}, "finish_reason": None})
            if not script.is_broken:
                self._event({"delta": {}, "finish_reason": "length"})
                self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
            return None

        def _event(self, choice: dict[str, Any]) -> None:
            kind = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "vision"}
            self.wfile.write(f"data: {json.dumps({**kind, 'choices': [{'index': 0, **choice}]})}\n\n".encode())

        def _fail(self, status: int, message: str) -> None:
            self._send(status, {"error": {"message": message, "type": "invalid_request_error"}})

        def _send(self, status: int, values: Any) -> None:
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield script
        finally:
            server.shutdown()
