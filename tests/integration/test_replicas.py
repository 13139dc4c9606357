"""Copies of the server on Ray Serve. Ray needs another protobuf than our tools, so an environment of its own:

`pip install -e '.[ray]'`, the plugins `image` and `clip`, openai, psutil, pytest and pytest-timeout; then
`pytest -m integration tests/integration/test_replicas.py -s`. The tests share a server, which the last one stops.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from transformers import AutoModelForCausalLM

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.serving.sending import image_part, picture, say

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NUM_POSITIONS = 512
LONG = {"max_tokens": 400, "temperature": 0, "logit_bias": {"2": -100}}
NUM_CLIENTS = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_decoder("llama", num_hidden_layers=4, num_positions=NUM_POSITIONS).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    insertion = {"policy": "inner_adapter", "placement": {"layers": [1, 3]}}
    model = adaptkit.adapt(base, {"image": {"encoder": tiny_clip_vision(), "projector": "linear"}}, insertion)
    model.save_pretrained(folder / "vision")
    adaptkit.AdaptkitProcessor.from_model(model).save_pretrained(folder / "vision")
    return folder / "vision"


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "adaptkit", "serve", str(checkpoint), "--replicas", "2", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any("Serving on" in line for line in iter(process.stdout.readline, ""))
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            yield process, client
        if process.poll() is None:
            process.terminate()


def replicas(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes of our own server's replicas."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "ServeReplica" in child.name()]


def test_one_is_killed_under_load(server: tuple[subprocess.Popen[str], openai.OpenAI]) -> None:
    process, client = server
    create = client.chat.completions.create

    def question(number: int) -> list[dict[str, Any]]:
        return say(f"Number {number % 6}", *([image_part(picture(number % 6))] if number % 2 else []))

    def ask(number: int) -> tuple[float, str | None]:
        started = time.monotonic()
        try:
            answer = create(model="auto", messages=question(number), max_tokens=40, temperature=0)
            return started, answer.choices[0].message.content
        except openai.APIStatusError:
            return started, None

    expected = [ask(number)[1] for number in range(6)]
    assert None not in expected
    before = replicas(process)
    assert len(before) == 2
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(before[0].pid, signal.SIGKILL)

    timer = threading.Timer(1.0, kill)
    timer.start()
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        outcomes = list(pool.map(ask, range(6 * 40)))
    timer.join()
    lost = [started for started, text in outcomes if text is None]
    print(f"{len(outcomes)} requests, {len(lost)} lost, all in flight when a replica was killed")
    assert outcomes[0][0] < killed[0] < outcomes[-1][0]
    assert len(lost) <= NUM_CLIENTS
    assert all(started <= killed[0] for started in lost)
    assert all(text == expected[number % 6] for number, (_, text) in enumerate(outcomes) if text is not None)
    deadline = time.monotonic() + 120
    while len(replicas(process)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_client_that_leaves_and_errors_pass_through(server: tuple[subprocess.Popen[str], openai.OpenAI]) -> None:
    _, client = server
    with client.chat.completions.create(model="text", messages=say("Talk"), stream=True, **LONG) as stream:
        next(iter(stream))
    with pytest.raises(openai.NotFoundError, match="'vision'"):
        client.chat.completions.create(model="visoin", messages=say("Hi"))
    part = {"type": "image_url", "image_url": {"url": "/etc/passwd"}}
    with pytest.raises(openai.BadRequestError, match="--allow-media-dir"):
        client.chat.completions.create(model="auto", messages=say("Hi", part))
    assert client.chat.completions.create(model="text", messages=say("Hi"), max_tokens=2).choices


def test_a_signal_lets_what_runs_finish(server: tuple[subprocess.Popen[str], openai.OpenAI]) -> None:
    process, client = server
    stream = client.chat.completions.create(model="text", messages=say("Talk"), stream=True, **LONG)
    next(iter(stream))
    process.send_signal(signal.SIGTERM)
    assert list(stream)[-1].choices[0].finish_reason == "length"
    assert process.wait(120) == 0
