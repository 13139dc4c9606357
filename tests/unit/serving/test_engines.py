"""`adaptkit serve --engine vllm`, before a program that stands in for vLLM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, GenerationConfig

import adaptkit
from adaptkit.cli import cli
from adaptkit.errors import ArgumentError, DataError, ModelError, RunError
from adaptkit.export.together import export_together
from adaptkit.inference import QueueFullError
from adaptkit.model.processor import load_processor
from adaptkit.serving import watched
from adaptkit.serving.engine_options import engine_options
from adaptkit.serving.engines import Engine, engines
from adaptkit.serving.forwarding import ForwardingSession
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.serving.conftest import serve
from tests.unit.serving.sending import image_part, picture, say

FAKE = f"{sys.executable} {Path(__file__).with_name('fake_vllm.py')}"
POLICIES = {"vision": "inner_adapter", "gated": "gated_inner_adapter"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a workflow that stock LLaVA can hold, and of one that it cannot."""
    folder = tmp_path_factory.mktemp("run")
    tiny_decoder("llama", num_hidden_layers=4, num_positions=512).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "clip")
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    encoder = {"name": "clip", "path": str(folder / "clip")}
    for name, policy in POLICIES.items():
        spec = {"encoder": encoder, "projector": "mlp2x_gelu"}
        model = adaptkit.adapt(base, {"image": spec}, {"policy": policy, "placement": {"layers": [1, 3]}})
        model.save_pretrained(folder / name)
        adaptkit.AdaptkitProcessor.from_model(model).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def stock(run: Path) -> dict[str, Any]:
    return export_together({"vision": run / "vision"}, run / "out", base_name="text")


@contextlib.contextmanager
def started(stock: dict[str, Any], place: Path, command: str = FAKE, ended: Any = print) -> Iterator[dict[str, Engine]]:
    folders = {name: found.directory for name, found in stock.items()}
    limits: dict[str, Any] = {"max_batch_size": 2, "timeout_s": 60, "on_start": lambda _: None, "on_end": ended}
    with engines(folders, command, log_dir=place / "logs", **limits) as running:
        yield running


@pytest.fixture(scope="module")
def running(stock: dict[str, Any], run: Path) -> Iterator[dict[str, Engine]]:
    with started(stock, run) as found:
        yield found


@pytest.fixture(scope="module")
def session(stock: dict[str, Any], running: dict[str, Engine], run: Path) -> Iterator[ForwardingSession]:
    processors = {"vision": load_processor(run / "vision")}
    with ForwardingSession(running, stock, processors, max_batch_size=2, max_waiting=0) as opened:
        yield opened


def ask(url: str, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    return httpx.post(url + path, json={"model": "auto", **body}, timeout=30, trust_env=False)


def sent(response: httpx.Response) -> tuple[str, dict[str, Any]]:
    """What the engine was asked: path and body."""
    assert response.status_code == 200, response.text
    _, path, _, body = response.json()["choices"][0]["message"]["content"].split(" ", 3)
    return path, json.loads(body)


def test_text_reaches_the_base_as_the_ids_of_a_session(session: ForwardingSession, run: Path) -> None:
    messages = [{"role": "user", "content": "a <image> and </s>"}]
    with serve(session) as url:
        response = ask(url, messages=messages, max_tokens=5, stop=["x"], seed=3)
    path, body = sent(response)
    ids = load_processor(run / "vision").encode(messages, add_generation_prompt=True).input_ids
    assert (path, body["model"], body["prompt"]) == ("completions", "text", ids)
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (5, 0.0, 3)
    assert "x" in body["stop"]
    assert response.json()["model"] == "text"
    assert response.json()["usage"]["prompt_tokens"] == 7
    assert response.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 3


def test_pictures_reach_their_workflow(session: ForwardingSession) -> None:
    with serve(session) as url:
        path, body = sent(ask(url, messages=say("what is it ?", image_part(picture()))))
    assert (path, body["model"]) == ("chat/completions", "vision")
    first, second = body["messages"][0]["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert second == {"type": "text", "text": "what is it ?"}
    assert body["logit_bias"]  # the placeholder is never generated


@pytest.mark.parametrize("media", [[], [image_part(picture())]])
def test_streams_and_log_probabilities(session: ForwardingSession, media: list[dict[str, Any]]) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1}
    with serve(session) as url:
        lines = ask(url, messages=say("hello", *media), **options).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices).startswith("path")
    assert choices[-1]["finish_reason"] == "stop"
    assert choices[1]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] == -0.5
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert "[DONE]" in lines[-2]


def test_completions_and_several_answers(session: ForwardingSession) -> None:
    with serve(session) as url:
        found = ask(url, "/v1/completions", prompt=["a", "b"], n=2, logprobs=1).json()
        assert len(found["choices"]) == 4
        assert found["model"] == "text"
        assert found["choices"][0]["logprobs"]["tokens"][0] == "path"


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"messages": say("a <image> here", image_part(picture()))}, 400, "<image>"),
        ({"messages": say("hello", image_part(b"none"))}, 400, "picture"),
        ({"messages": say("hello"), "top_k": 13, "temperature": 1}, 400, "thirteen"),
        ({"messages": say("hello"), "no_repeat_ngram_size": 2}, 400, "no_repeat_ngram_size"),
        ({"messages": say("hello"), "model": "vison"}, 404, "vision"),
        ({"messages": say("hello " * 600)}, 400, "512"),
        ({"messages": say("hello"), "top_k": 16, "temperature": 1}, 503, "core died"),
    ],
)
def test_what_is_refused(session: ForwardingSession, body: dict[str, Any], status: int, named: str) -> None:
    with serve(session) as url:
        response = ask(url, **body)
    assert response.status_code == status
    assert named in response.json()["error"]["message"]


def test_a_client_that_leaves_frees_its_place_and_the_engines(
    session: ForwardingSession, running: dict[str, Engine]
) -> None:
    forever = {"temperature": 1.0, "top_k": 15}
    requests = [session.submit(say("hello"), **forever) for _ in range(2)]
    with pytest.raises(QueueFullError):
        session.submit(say("hello"))
    assert session.status()["running"] == 2
    session.submit(say("hello", {"type": "image", "image": picture()})).cancel()  # places are an engine's
    for request in requests:
        request.cancel()
    wait_until(lambda: httpx.get(f"{running['text'].url}/left", trust_env=False).json() == 2)
    wait_until(lambda: session.status()["running"] == 0)


def test_an_engine_that_ends_is_reported(stock: dict[str, Any], run: Path, tmp_path: Path) -> None:
    told: list[str] = []
    processors = {"vision": load_processor(run / "vision")}
    with (
        started(stock, tmp_path, ended=told.append) as running,
        ForwardingSession(running, stock, processors) as session,
        serve(session) as url,
    ):
        broken = ask(url, messages=say("hello"), top_k=14, temperature=1)
        assert broken.status_code == 503
        wait_until(lambda: bool(told))
        after = ask(url, messages=say("hello"))
        assert after.status_code == 503
        assert "'text'" in after.json()["error"]["message"]
        assert sent(ask(url, messages=say("hello", image_part(picture()))))[1]["model"] == "vision"
        assert "adaptkit_session_engines 1.0" in httpx.get(f"{url}/metrics", trust_env=False).text
    assert [("'text'" in message, "code 3" in message) for message in told] == [(True, True)]


def test_an_engine_that_does_not_start_stops_the_others(stock: dict[str, Any], tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"(?s)'vision' ended.*no memory left"),
        started(stock, tmp_path, f"{FAKE} --fail vision"),
    ):
        raise AssertionError
    with pytest.raises(RunError, match="not a command line"), started(stock, tmp_path, "vllm 'serve"):
        raise AssertionError


def test_exports_are_used_again_while_they_are_up_to_date(stock: dict[str, Any], run: Path) -> None:
    folders = {"vision": run / "vision"}
    assert not any(found.reused for found in stock.values())
    assert all(found.reused for found in export_together(folders, run / "out", base_name="text").values())
    config = run / "vision" / "generation_config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), "max_new_tokens": 9}))
    try:
        again = export_together(folders, run / "other", base_name="text")
        assert not again["vision"].reused
        assert GenerationConfig.from_pretrained(again["vision"].directory).max_new_tokens == 9
    finally:
        config.write_text(before)
    changed = export_together(folders, run / "other", base_name="text")
    assert not changed["vision"].reused


def test_what_no_stock_model_holds_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'gated'.*gated_inner_adapter"):
        export_together({name: run / name for name in POLICIES}, tmp_path / "out", base_name="text")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine" / "vision").mkdir(parents=True)
    (tmp_path / "mine" / "vision" / "notes.txt").write_text("keep")
    with pytest.raises(ModelError, match="is not empty"):
        export_together({"vision": run / "vision"}, tmp_path / "mine", base_name="text")
    assert (tmp_path / "mine" / "vision" / "notes.txt").read_text() == "keep"


def test_generation_options_are_those_of_a_session() -> None:
    sampling = GenerationConfig(do_sample=True, temperature=0.7, suppress_tokens=[5], max_new_tokens=30)
    assert engine_options(sampling, {"sequence_bias": [[[3], 2.0]]}, 20) == {
        "temperature": 0.7,
        "top_k": 50,
        "max_tokens": 20,
        "logit_bias": {"3": 2.0, "5": -100.0},
    }
    greedy = engine_options(sampling, {"temperature": 0, "top_p": 0.5, "seed": 4})
    assert (greedy["temperature"], greedy["seed"], "top_p" in greedy) == (0.0, 4, False)
    with pytest.raises(ArgumentError, match="typical_p"):
        engine_options(sampling, {"typical_p": 0.3})
    with pytest.raises(DataError, match="sequence_bias"):
        engine_options(sampling, {"sequence_bias": [[[3, 4], 2.0]]})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--engine", "vllm", "--replicas", "2"], "--replicas"),
        (["--engine", "vllm", "--device", "cpu"], "--device"),
        (["--engine-dir", "x"], "--engine-dir"),
        (["--vllm-command", "vllm serve"], "--vllm-command"),
        (["--engine", "vllm", "--default", "visoin"], "visoin"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Path, arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(cli, ["serve", str(run / "vision"), *arguments])
    assert result.exit_code == 2
    assert named in result.output


def test_the_command_serves_and_leaves_no_engine_behind(run: Path, stock: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "adaptkit", "serve", str(run / "vision"), "--port", "0", "--engine", "vllm"]
    process = subprocess.Popen(
        [*command, "--engine-dir", str(run / "out")],
        env={**os.environ, "ADAPTKIT_VLLM_COMMAND": FAKE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Serving on "):
                break
        assert said[-1].startswith("Serving on "), said
        assert any("up to date" in line for line in said)
        url = said[-1].split()[2].removesuffix("/v1.")
        assert sent(ask(url, messages=say("hello")))[1]["model"] == "text"
        pids = children(process.pid)
        assert len(pids) == 4  # two engines, each with its guard
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        wait_until(lambda: not any(alive(pid) for pid in pids))
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def test_a_guard_ends_all_of_its_command_with_who_holds_its_input() -> None:
    nested = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'import time; time.sleep(300)'])"
    guard = subprocess.Popen([sys.executable, watched.__file__, sys.executable, "-c", nested], stdin=subprocess.PIPE)
    wait_until(lambda: len(children(guard.pid)) == 2)
    pids = children(guard.pid)
    guard.communicate(timeout=30)
    wait_until(lambda: not any(alive(pid) for pid in pids))


def children(pid: int) -> list[int]:
    """Of a process, and theirs."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid)) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
