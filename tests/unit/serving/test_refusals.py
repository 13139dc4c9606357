"""What the server refuses, and what it says."""

from __future__ import annotations

import io
import json
import os
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.unit.serving.conftest import Serving
from tests.unit.serving.sending import audio_part, image_part, picture, recording, say

CHAT = "/v1/chat/completions"


def refused(http: httpx.Client, body: Any, *words: str, status: int = 400, path: str = CHAT) -> dict[str, Any]:
    """The error with which a request is refused; its message names what it must."""
    response = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not [word for word in words if word not in error["message"]], error["message"]
    return error


def ask(*media: dict[str, Any], model: str = "auto", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": say("What?", *media), "max_tokens": 2, **fields}


def url_part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("store", True),
        ("reasoning_effort", "high"),
        ("user", "somebody"),
    ],
)
def test_what_is_not_supported_is_named(http: httpx.Client, field: str, value: Any) -> None:
    refused(http, ask(**{field: value}), field, "not supported")


def test_values_that_ask_for_nothing_pass(http: httpx.Client) -> None:
    neutral = {"tools": None, "tool_choice": "none", "response_format": {"type": "text"}, "frequency_penalty": 0}
    response = http.post(CHAT, json=ask(**neutral, modalities=["text"], store=False, n=None, stop=None, stream=None))
    assert response.status_code == 200, response.text
    message = response.json()["choices"][0]["message"] | {"tool_calls": None, "function_call": None, "audio": None}
    again = http.post(CHAT, json=ask() | {"messages": [*say("What?"), message, *say("And?")]})
    assert again.status_code == 200, again.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temprature": 1}, ["temprature", "temperature"]),
        ({"temperature": "hot"}, ["temperature"]),
        ({"temperature": 3}, ["temperature"]),
        ({"max_tokens": 0}, ["max_tokens"]),
        ({"max_tokens": 3, "max_completion_tokens": 4}, ["max_completion_tokens"]),
        ({"top_logprobs": 2}, ["logprobs"]),
        ({"logprobs": True, "top_logprobs": 21}, ["top_logprobs"]),
        ({"n": 1000}, ["n", "16"]),
        ({"stop": ["x"] * 17}, ["stop"]),
        ({"stream_options": {"include_usage": True}}, ["stream_options", "stream"]),
        ({"logit_bias": {"99999": 1}}, ["logit_bias", "259"]),
        ({"logit_bias": {"a": 1}}, ["logit_bias"]),
        ({"logit_bias": {"9" * 5000: 1}}, ["logit_bias"]),
        ({"model": "x" * 100_000}, ["model", "256"]),
        ({"seed": 2**64}, ["seed"]),
        ({"messages": []}, ["messages"]),
        ({"messages": "Hi"}, ["messages"]),
        ({"messages": [{"role": "user"}]}, ["messages.0.content"]),
        ({"messages": [{"role": "user", "content": None}]}, ["messages.0.content: "]),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, ["messages.0.content.0: ", "dict"]),
        ({"stop": 5}, ["stop: "]),
        ({"messages": [{"role": "tool", "content": "4"}]}, ["messages.0.role", "'user'"]),
        ({"messages": [{"role": "user", "content": "Hi"}] * 10_000}, ["10,000", "1,000"]),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}, ["tool_calls"]),
        ({"messages": say("x" * 1_000_001)}, ["1,000,001"]),
        ({"messages": say("half a character: \ud800")}, ["ud800"]),
        ({"messages": say("Hi", {"type": "imag_url"})}, ["messages.0.content.0", "imag_url", "image_url"]),
        ({"messages": say("Hi", {"type": "video_url", "video_url": {"url": "data:,"}})}, ["video_url"]),
        ({"messages": say("Hi", {"type": "text"})}, ["messages.0.content.0", "'text'"]),
        ({"messages": say("Hi", {"type": "image_url"})}, ["messages.0.content.0", "image_url"]),
        ({"messages": say("Hi", {"type": "series", "series": {"path": "/etc/passwd"}})}, ["data"]),
        ({"messages": say("Hi", url_part(5))}, ["url", "string"]),
        ({"messages": say("Hi", url_part("data:image/png,abc"))}, ["base64"]),
        ({"messages": say("Hi", url_part("data:image/png;base64,!!!"))}, ["base64"]),
        ({"messages": say("Hi", url_part("data:image/png;base64,"))}, ["empty"]),
        ({"messages": say("Hi", url_part("http://127.0.0.1:1/cat.png"))}, ["fetches nothing", "data URL"]),
        ({"messages": say("Hi", url_part("file:///etc/passwd"))}, ["--allow-media-dir"]),
        ({"messages": say("Hi", url_part("/etc/passwd"))}, ["--allow-media-dir"]),
        ({"messages": say("Hi", {**image_part(picture()), "image_url": {"url": "data:;base64,AAAA", "detail": "low"}})},
         ["detail"]),
        ({"messages": say("Hi", image_part(b"no picture"))}, ["picture"]),
        ({"messages": say("Hi", image_part(picture()[:90]))}, ["picture"]),
        ({"messages": say("Hi", audio_part(b"RIFF no recording"))}, ["recording"]),
        ({"messages": say("Hi", image_part(picture()), audio_part(recording()))}, ["image", "audio", "vision"]),
        ({"model": "text", "messages": say("Hi", image_part(picture()))}, ["text", "image", "vision"]),
        ({"model": "vision", "messages": say("Hi", audio_part(recording()))}, ["vision", "audio", "speech"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(http: httpx.Client, fields: dict[str, Any], words: list[str]) -> None:
    refused(http, ask() | fields, *words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, ["empty"]),
        ({"prompt": [1, 2, 3]}, ["prompt"]),
        ({"prompt": "Hi", "echo": True}, ["echo"]),
        ({"prompt": "Hi", "best_of": 3}, ["best_of"]),
        ({"prompt": ["Hi"] * 17}, ["17", "16"]),
        ({}, ["prompt"]),
    ],
)
def test_text_completions_too(http: httpx.Client, fields: dict[str, Any], words: list[str]) -> None:
    refused(http, {"model": "text", **fields}, *words, path="/v1/completions")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ["JSON"]),
        (b"[]", ["object"]),
        (b"", ["object"]),
        (b"\xff", ["body"]),
        (b"[" * 200_000, ["body"]),
        (b'{"model": "text", "messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}', ["temperature"]),
    ],
)
def test_a_body_that_is_no_request(http: httpx.Client, content: bytes, words: list[str]) -> None:
    response = http.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert all(word in response.json()["error"]["message"] for word in words)


def test_a_browser_cannot_be_led_to_send_a_request(http: httpx.Client) -> None:
    """A page of another site may send text/plain without asking the server first."""
    response = http.post(CHAT, content=b'{"model": "text", "messages": []}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 400
    assert "Content-Type" in response.json()["error"]["message"]
    assert "access-control-allow-origin" not in response.headers


def test_unknown_paths_and_methods_have_errors_of_the_same_form(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert http.get(CHAT).status_code == 405
    assert http.get(CHAT).json()["error"]["message"]


def bomb(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def test_sizes_are_limited(serving: Serving) -> None:
    limits = {"max_body_bytes": 200_000, "max_media_bytes": 40_000, "max_media": 2, "max_pixels": 10_000}
    with serving(**limits, max_tokens=5) as url, httpx.Client(base_url=url, trust_env=False) as http:
        refused(http, ask(image_part(bytes(40_001))), "40,000", status=413)
        refused(http, ask(*[image_part(picture())] * 3), "3", "2", status=413)
        refused(http, ask(image_part(picture(size=(101, 100)))), "10,000", "pixels", status=413)
        refused(http, ask(image_part(bomb(9000))), "pixels", status=413)
        refused(http, ask(max_tokens=6), "6", "5")
        refused(http, {"model": "text", "messages": say("x" * 200_000)}, "200,000", status=413)
        chunks = http.post(CHAT, content=iter([b"x" * 100_000] * 3), headers={"Content-Type": "application/json"})
        assert chunks.status_code == 413
        short = http.post(CHAT, json={"model": "text", "messages": say("Hi"), "logit_bias": {"2": -100}}).json()
        assert short["usage"]["completion_tokens"] == 5


def test_a_picture_of_50_000_pixels_a_side(http: httpx.Client) -> None:
    header = bytearray(bomb(8))
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    refused(http, ask(image_part(bytes(header))), "pixels", status=413)


def test_files_of_one_folder_may_be_named(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a cat.png").write_bytes(picture())
    (tmp_path / "secret.png").write_bytes(picture(1))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    with serving(media_dir=folder) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        expected = http.post(CHAT, json=ask(image_part(picture()), temperature=0)).json()["choices"]
        for name in ("sub/a cat.png", f"{folder}/sub/a cat.png", (folder / "sub" / "a cat.png").as_uri()):
            answer = http.post(CHAT, json=ask(url_part(name), temperature=0))
            assert answer.json()["choices"] == expected, answer.text
        outside = (
            *("../secret.png", "sub/../../secret.png", f"{tmp_path}/secret.png", f"file://{tmp_path}/secret.png"),
            *("file:///media/..%2f..%2fsecret.png", "link.png", "loop.png", "pipe.png", "sub", "none.png", "a\0b"),
            *("/dev/zero", "/etc/passwd", "~/secret.png", "x" * 5000),
        )
        for name in outside:
            refused(http, ask(url_part(name)), "no file")
        refused(http, ask(url_part("https://127.0.0.1/cat.png")), "fetches nothing")


def test_a_key_is_needed_where_there_is_one(serving: Serving) -> None:
    with serving(api_key="sécret") as url, httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c8OpY3JldA=="}):
            for path in ("/v1/models", "/metrics", "/nothing"):
                response = http.get(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert "Authorization" in response.json()["error"]["message"]
        right = {"Authorization": "Bearer sécret".encode()}
        assert http.get("/v1/models", headers=right).status_code == 200


def test_who_sends_a_byte_a_second_is_cut_off(serving: Serving) -> None:
    half = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    with serving(receive_timeout_s=0.6) as url:
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        for head in (b"", half, half + b"Content-Length: 99\r\n\r\n{"):
            with socket.create_connection(address, timeout=10) as client:
                started = time.monotonic()
                client.sendall(head)
                received = trickle(client)
                assert time.monotonic() - started < 5
                assert not received or b"408" in received.split(b"\r\n")[0]
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200


def trickle(client: socket.socket) -> bytes:
    """Send a byte now and then until the server answers or closes; what it said."""
    client.settimeout(0.2)
    while True:
        try:
            return client.recv(1 << 16)
        except TimeoutError:
            try:
                client.sendall(b"x")
            except OSError:
                return b""
        except ConnectionError:
            return b""
