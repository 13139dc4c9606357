"""Many clients, clients that leave, and a server that is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

import adaptkit
from adaptkit.cli import cli
from adaptkit.serving.server import Server
from adaptkit.serving.settings import ServerSettings
from adaptkit.testing import tiny_clip_vision, tiny_tokenizer
from tests.unit.serving.conftest import PLACES, Serving, serve
from tests.unit.serving.sending import image_part, picture, say

LONG = {"max_tokens": 400, "temperature": 0, "logit_bias": {"2": -100}}


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(url: str, session: Any, stream: bool) -> None:
    body = {"model": "text", "messages": say("Talk"), "stream": stream, "n": PLACES, **LONG}
    before = session.status()["completion_tokens"]
    if stream:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, trust_env=False) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=0.3, trust_env=False)
    wait_until(lambda: not session.status()["running"] and not session.status()["waiting"])
    assert session.status()["completion_tokens"] - before < PLACES * 400


def test_a_full_queue_asks_to_come_again(base: Any, session: Any) -> None:
    with (
        adaptkit.Session(base, tokenizer=tiny_tokenizer(), max_batch_size=1, max_waiting=1) as small,
        serve(small) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        streams = []
        for _ in range(2):
            streams.append(client.chat.completions.create(model="text", messages=say("Talk"), stream=True, **LONG))
            wait_until(lambda: small.status()["running"] == 1)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="text", messages=say("Hi"))
        assert int(refused.value.response.headers["retry-after"]) >= 1
        for stream in streams:
            stream.close()
        wait_until(lambda: not small.status()["running"])
        assert client.chat.completions.create(model="text", messages=say("Hi"), max_tokens=1).choices


def test_an_answer_that_takes_too_long(serving: Serving, session: Any) -> None:
    with serving(request_timeout_s=0.2) as url, httpx.Client(base_url=url, trust_env=False) as http:
        body = {"model": "text", "messages": say("Talk"), "n": 4, **LONG}
        late = http.post("/v1/chat/completions", json=body)
        assert late.status_code == 504
        assert "0.2" in late.json()["error"]["message"]
        lines = http.post("/v1/chat/completions", json=body | {"stream": True}).text.split("\n\n")
        assert "timeout" in lines[-2]
        assert "[DONE]" not in lines[-2]
    wait_until(lambda: not session.status()["running"])


def test_a_server_that_is_stopped_finishes_what_runs(serving: Serving) -> None:
    with openai.OpenAI(base_url="http://set-below.invalid", api_key="none") as client:
        with serving() as url:
            client.base_url = f"{url}/v1"
            stream = client.chat.completions.create(model="text", messages=say("Talk"), stream=True, **LONG)
            next(iter(stream))
            rest = ThreadPoolExecutor(1).submit(list, stream)
        chunks = rest.result(10)
        assert chunks[-1].choices[0].finish_reason == "length"
        with pytest.raises(openai.APIConnectionError):
            client.with_options(max_retries=0).models.list()


def test_many_clients_at_once(url: str, session: Any) -> None:
    """Each is answered as if it were alone; 429s do not count, as there are fewer than may wait."""

    def conversation(number: int) -> list[dict[str, Any]]:
        return say(f"Number {number}", *([image_part(picture(number))] if number % 2 else []))

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client, ThreadPoolExecutor(8) as pool:
        create = client.chat.completions.create
        answers = list(
            pool.map(lambda n: create(model="auto", messages=conversation(n), max_tokens=6, temperature=0), range(24))
        )
        for number in (0, 1, 22, 23):
            alone = create(model="auto", messages=conversation(number), max_tokens=6, temperature=0)
            assert answers[number].choices[0].message.content == alone.choices[0].message.content
    assert not session.status()["running"]


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(adaptkit.RunError, match=f"{port}.*--port"):
            Server("127.0.0.1", port, ServerSettings())
    with pytest.raises(adaptkit.RunError, match=r"no-such-host\.invalid"):
        Server("no-such-host.invalid", 0, ServerSettings())


def test_the_command_names_the_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith(("adaptkit.serving", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(cli, ["serve", str(tmp_path)])
    assert result.exit_code != 0
    assert "inner-adaptkit[serve]" in result.output


@pytest.fixture(scope="module")
def checkpoint(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow on disk, whose base is there, too."""
    folder = tmp_path_factory.mktemp("checkpoint")
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "base")
    model = adaptkit.adapt(loaded, {"image": {"encoder": tiny_clip_vision(), "projector": "linear"}})
    model.save_pretrained(folder / "vision")
    adaptkit.AdaptkitProcessor.from_model(model).save_pretrained(folder / "vision")
    return folder / "vision"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_finishes_what_runs(checkpoint: Path, number: int) -> None:
    assert threading.current_thread() is threading.main_thread()  # which alone receives signals
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def ask() -> Any:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="open sesame", max_retries=8) as client:
            assert {model.id for model in client.models.list()} == {"auto", "text", "vision"}
            stream = client.chat.completions.create(model="text", messages=say("Talk"), stream=True, **LONG)
            next(iter(stream))
            os.kill(os.getpid(), number)
            return list(stream)[-1].choices[0].finish_reason

    with ThreadPoolExecutor(1) as pool:
        reason = pool.submit(ask)
        command = ["serve", str(checkpoint), "--port", str(port)]
        result = CliRunner().invoke(cli, command, env={"ADAPTKIT_API_KEY": "open sesame"})
        assert reason.result(10) == "length"
    assert result.exit_code == 0, result.output
    assert f"http://127.0.0.1:{port}/v1" in result.output
    assert "vision: image" in result.output
    assert "open sesame" not in result.output


def test_a_server_for_everybody_without_a_key_warns(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = ["serve", str(checkpoint), "--host", "0.0.0.0", "--port", str(taken.getsockname()[1])]
        without = CliRunner().invoke(cli, command)
        with_key = CliRunner().invoke(cli, [*command, "--api-key", "sesame"])
    assert without.exit_code == with_key.exit_code == 1
    assert "ADAPTKIT_API_KEY" in without.output
    assert "ADAPTKIT_API_KEY" not in with_key.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["inner-adaptkit[ray]"]),
        (["--port", "0"], ["--port"]),
        (["--device", "cuda:1"], ["--device"]),
    ],
)
def test_replicas_say_what_they_need(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    result = CliRunner().invoke(cli, ["serve", str(checkpoint), "--replicas", "2", *options])
    assert result.exit_code == 2
    assert not [word for word in words if word not in result.output]


def test_replicas_of_what_is_no_workflow_are_not_started(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["serve", str(tmp_path), "--replicas", "2"])
    assert result.exit_code == 2
    assert str(tmp_path) in result.output
