"""A session of tiny workflows, and servers over it on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import openai
import pytest
import torch

import adaptkit
from adaptkit.serving.app import create_app
from adaptkit.serving.server import Server
from adaptkit.serving.settings import ServerSettings
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

NUM_POSITIONS = 512
PLACES = 4
WHISPER = {"d_model": 24, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
SERIES = {"patch_length": 4, "stride": 4, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}

Serving = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def base() -> Any:
    return tiny_decoder("llama", num_hidden_layers=4, num_positions=NUM_POSITIONS)


@pytest.fixture(scope="session")
def session(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from adaptkit_timeseries.creation import create_model
    from adaptkit_whisper.creation import create

    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    create({**WHISPER, "max_source_positions": 50}, folder / "whisper")
    create_model(SERIES, folder / "series")
    encoders: dict[str, tuple[str, Any]] = {
        "vision": ("image", tiny_clip_vision()),
        "speech": ("audio", {"name": "whisper", "path": str(folder / "whisper"), "trim": True, "pool": 2}),
        "sensors": ("series", {"name": "series_patches", "path": str(folder / "series")}),
    }
    tokenizer = tiny_tokenizer()
    workflows = {}
    for name, (modality, encoder) in encoders.items():
        insertion = {"policy": "inner_adapter", "placement": {"layers": [1, 3]}}
        model = adaptkit.adapt(base, {modality: {"encoder": encoder, "projector": "linear"}}, insertion)
        with torch.no_grad():  # what is inserted adds nothing at first
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.2)
        workflows[name] = (model, adaptkit.AdaptkitProcessor.from_model(model, tokenizer))
    with adaptkit.Session(base, workflows, max_batch_size=PLACES, max_waiting=64) as opened:
        yield opened


@contextlib.contextmanager
def serve(session: Any, **settings: Any) -> Iterator[str]:
    limits = ServerSettings(**settings)
    server = Server("127.0.0.1", 0, limits)
    thread = threading.Thread(target=server.run, args=(create_app(session, limits),), daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving(session: Any) -> Serving:
    """Starts a server of its own, with the settings that a test wants."""
    return lambda **settings: serve(session, **settings)


@pytest.fixture(scope="module")
def url(session: Any) -> Iterator[str]:
    with serve(session) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as connected:
        yield connected
