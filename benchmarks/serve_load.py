"""The server under load: text, pictures and recordings at once, clients that leave, requests that are malformed.

A server on loopback, over a decoder with random weights and three workflows, of pictures, of pictures again and of
recordings; each answer greedy. A request counts as right if its answer is the one that a session without prefix reuse
gives to it alone. Rounds after the first show what is not given back: memory, threads, open files, places in the batch.

    python -m benchmarks.serve_load
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import gc
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
import wave
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from adaptkit_whisper.creation import create
from PIL import Image
from rich.console import Console
from rich.table import Table

import adaptkit
from adaptkit.serving.app import create_app
from adaptkit.serving.server import Server
from adaptkit.serving.settings import ServerSettings
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from benchmarks.common import save

NUM_POSITIONS = 1024
PREFIX_CACHE_BYTES = 16 << 20
COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "steps")
PATH = "/v1/chat/completions"
WHISPER = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        kind: `good`, `cancelled` or `malformed`.
        body: What is sent.
        messages: The same as a session takes it.
    """

    kind: str
    body: Any
    messages: list[dict[str, Any]]


def build_session(options: argparse.Namespace, folder: Path) -> tuple[adaptkit.Session, adaptkit.Session]:
    """The session that is served, and one over the same models that answers one prompt at a time, with no reuse."""
    torch.manual_seed(0)
    sizes = {"hidden_size": options.hidden, "intermediate_size": 2 * options.hidden, "num_attention_heads": 4}
    base = tiny_decoder("llama", num_hidden_layers=options.layers, num_positions=NUM_POSITIONS, **sizes)
    create({**WHISPER, "max_source_positions": 50}, folder)
    recordings = {"name": "whisper", "path": str(folder), "trim": True, "pool": 2}
    encoders = {"vision": ("image", tiny_clip_vision()), "speech": ("audio", recordings)}
    encoders["second"] = ("image", tiny_clip_vision(seed=1))
    workflows = {}
    for name, (modality, encoder) in encoders.items():
        insertion = {"policy": "inner_adapter", "placement": {"every": 4}}
        model = adaptkit.adapt(base, {modality: {"encoder": encoder, "projector": "mlp2x_gelu"}}, insertion, True)
        with torch.no_grad():  # what is inserted adds nothing at first
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.02)
        workflows[name] = (model, adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer()))
    served = adaptkit.Session(
        base,
        workflows,
        max_batch_size=options.places,
        max_waiting=options.clients,
        prefix_cache_bytes=PREFIX_CACHE_BYTES,
    )
    alone = adaptkit.Session(base, workflows, max_batch_size=1, prefix_cache_bytes=0)
    return served, alone


def make_cases(options: argparse.Namespace) -> list[Case]:
    """The requests in random order; some ask again about a picture, or go on with a conversation."""
    rng = random.Random(0)
    num_cancelled, num_malformed = options.requests // 10, options.requests // 20
    kinds = ["cancelled"] * num_cancelled + ["malformed"] * num_malformed
    kinds += ["good"] * (options.requests - len(kinds))
    rng.shuffle(kinds)
    return [_case(kind, number, rng, options.tokens) for number, kind in enumerate(kinds)]


def _case(kind: str, number: int, rng: random.Random, num_tokens: int) -> Case:
    medium = rng.choice(["text", "text", "image", "audio", "second"])
    model = "second" if medium == "second" else "auto"
    text = f"Question {number}: {'and so on, ' * rng.randrange(8)}what is it?"
    parts, sent = [{"type": "text", "text": text}], [{"type": "text", "text": text}]
    if medium != "text":
        modality = "audio" if medium == "audio" else "image"
        raw = recording(rng.randrange(12)) if medium == "audio" else picture(rng.randrange(12))
        parts = [{"type": modality, modality: raw}, *parts]
        sent = [_sent_medium(modality, raw), *sent]
    before = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}] if number % 3 == 0 else []
    body = {"model": model, "messages": [*before, {"role": "user", "content": sent}], "temperature": 0}
    body |= {"max_tokens": NUM_POSITIONS if kind == "cancelled" else rng.randrange(num_tokens // 2, num_tokens)}
    body |= {"stream": kind == "cancelled" or number % 2 == 0}
    messages = [*before, {"role": "user", "content": parts}]
    return Case(kind, _spoilt(body, number) if kind == "malformed" else body, messages)


def _spoilt(body: dict[str, Any], number: int) -> Any:
    """A request that cannot be answered, one of several ways."""
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    bad_picture = [{"role": "user", "content": [url]}]
    path = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]
    ways = [
        body | {"messages": []},
        body | {"messages": bad_picture},
        body | {"messages": path},
        body | {"model": "none"},
        body | {"tools": [{"type": "function"}]},
        body | {"messages": [{"role": "user", "content": "x" * 3 * NUM_POSITIONS}]},
        "not an object",
    ]
    return ways[number % len(ways)]


def _sent_medium(modality: str, raw: bytes) -> dict[str, Any]:
    text = base64.b64encode(raw).decode()
    if modality == "audio":
        return {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}


def picture(seed: int) -> bytes:
    """Noise as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def recording(seed: int) -> bytes:
    """Noise as WAV."""
    samples = np.random.default_rng(seed).integers(-9000, 9000, 8000, dtype=np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16000, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def send(url: str, case: Case) -> tuple[str, Any, float]:
    """What came of a request: `answered` and the text, `refused` and the status, or `left`; and the seconds it took."""
    started = time.perf_counter()
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        if case.kind == "malformed" or not case.body["stream"]:
            response = client.post(PATH, json=case.body)
            whole = response.json()["choices"][0]["message"]["content"] if response.is_success else response.status_code
            outcome = "answered" if response.is_success else "refused"
            return outcome, whole, time.perf_counter() - started
        with client.stream("POST", PATH, json=case.body) as response:
            response.raise_for_status()
            text = ""
            for number, line in enumerate(response.iter_lines()):
                if case.kind == "cancelled" and number > 6:
                    return "left", None, time.perf_counter() - started
                if line.startswith("data: {"):
                    text += "".join(c["delta"].get("content") or "" for c in json.loads(line[6:])["choices"])
            return "answered", text, time.perf_counter() - started


@contextmanager
def serving(session: adaptkit.Session) -> Iterator[str]:
    """A server in a thread of this process."""
    settings = ServerSettings()
    server = Server("127.0.0.1", 0, settings)
    thread = threading.Thread(target=server.run, args=(create_app(session, settings),))
    thread.start()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join()


class Watch:
    """What runs together, seen every few milliseconds."""

    def __init__(self, session: adaptkit.Session) -> None:
        self.session = session
        self.running: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            self.running.append(self.session.status()["running"])

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def held(session: adaptkit.Session) -> dict[str, Any]:
    """What this process holds while nothing runs."""
    deadline = time.monotonic() + 30
    while (session.status()["running"] or session.status()["waiting"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(3)  # the engine's thread ends where nothing comes for a while, and connections close
    gc.collect()
    objects = gc.get_objects()
    owners = [found.untyped_storage() for found in objects if type(found) is torch.Tensor]
    storages = {storage.data_ptr(): storage.nbytes() for storage in owners}
    num_objects = len(objects)
    del objects, owners
    with suppress(OSError, AttributeError):  # what is free and fragmented is not held; there is glibc alone for it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "objects": num_objects,
        "tensors_mib": round(sum(storages.values()) / 2**20, 1),
        "resident_mib": round(resident / 2**20, 1),
        "threads": threading.active_count(),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "running": session.status()["running"],
        "waiting": session.status()["waiting"],
    }


def one_round(
    session: adaptkit.Session, url: str, cases: list[Case], expected: list[Any], clients: int
) -> dict[str, Any]:
    """Send every request once."""
    before = session.status()
    started = time.perf_counter()
    with Watch(session) as watch, ThreadPoolExecutor(clients) as pool:
        outcomes = list(pool.map(lambda case: send(url, case), cases))
    seconds = time.perf_counter() - started
    counts: Counter[str] = Counter()
    times = []
    for case, wanted, (outcome, value, took) in zip(cases, expected, outcomes, strict=True):
        if case.kind == "good":
            times.append(took)
            counts["right" if outcome == "answered" and value == wanted else "wrong"] += 1
        elif case.kind == "cancelled":
            counts["cancelled" if outcome == "left" else "not cancelled"] += 1
        else:
            counts["refused" if outcome == "refused" and value < 500 else "not refused"] += 1
    after = session.status()
    done = {
        name: after[name] - before[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "steps")
    }
    return {
        **counts,
        "seconds": round(seconds, 2),
        "requests_per_second": round(len(cases) / seconds, 1),
        "median_s": round(float(np.median(times)), 3),
        "p95_s": round(float(np.quantile(times, 0.95)), 3),
        "most_at_once": max(watch.running, default=0),
        **done,
        **held(session),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16, help="requests at a time")
    parser.add_argument("--places", type=int, default=8, help="of the batch")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48, help="most of an answer")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session, alone = build_session(options, Path(folder))
    cases = make_cases(options)
    with session:
        with alone:
            expected = [
                alone.chat(c.messages, c.body["model"], max_new_tokens=c.body["max_tokens"], temperature=0).text
                if c.kind == "good"
                else None
                for c in cases
            ]
        with serving(session) as url:
            rounds = [one_round(session, url, cases, expected, options.clients) for _ in range(options.rounds)]
        groups = [group["workflows"] for group in session.status()["groups"]]
    table = Table("", *(f"round {number}" for number in range(1, len(rounds) + 1)), title=f"batch groups: {groups}")
    for name in dict.fromkeys(name for found in rounds for name in found):
        table.add_row(name, *(str(found.get(name, 0)) for found in rounds))
    Console(width=100).print(table)
    if options.output:
        save(options.output, {"options": {**vars(options), "output": None}, "groups": groups}, rounds)
    bad = sum(found.get(name, 0) for found in rounds for name in ("wrong", "not cancelled", "not refused"))
    sys.exit(1 if bad or rounds[-1]["running"] or rounds[-1]["waiting"] else 0)


if __name__ == "__main__":
    main()
