"""A session as what answers a chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import adaptkit
from adaptkit.errors import DataError
from adaptkit.serving.backends import SessionBackend, check_choice
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (40, 24), (200, 30, 30)).save(path)
    return path


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionBackend]:
    folder = tmp_path_factory.mktemp("run")
    base = tiny_decoder("llama")
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    base = type(base).from_pretrained(folder / "base")
    adaptkit.adapt(base, {"image": {"encoder": tiny_clip_vision(), "projector": "linear"}}).save_pretrained(
        folder / "vision"
    )
    backend = SessionBackend(adaptkit.Session.open(folder / "vision"))
    yield backend
    backend.close()


def test_the_media_choose_the_workflow(backend: SessionBackend, picture: Path) -> None:
    assert backend.choices == ["auto", "text", "vision"]
    assert backend.modalities == ["image"]
    medium = {"type": "image", "image": picture.read_bytes()}
    for content, workflow in (("word", "text"), ([medium, {"type": "text", "text": "word"}], "vision")):
        reply = backend.ask([{"role": "user", "content": content}], "auto", {"max_new_tokens": 3, "temperature": 0.0})
        pieces = list(reply)
        assert (reply.workflow, reply.finish_reason) == (workflow, "length")
        assert all(isinstance(piece, str) for piece in pieces)


def test_a_cancelled_answer_ends(backend: SessionBackend) -> None:
    reply = backend.ask([{"role": "user", "content": "word"}], "text", {"max_new_tokens": 200})
    reply.cancel()
    list(reply)
    assert reply.finish_reason == "cancelled"


def test_media_are_read_as_the_workflow_reads_them(backend: SessionBackend, picture: Path) -> None:
    assert backend.read("image", picture).size == (40, 24)
    with pytest.raises(DataError, match=r"'audio'.*image"):
        backend.read("audio", picture)
    with pytest.raises(DataError, match=r"test_backends\.py"):
        backend.read("image", Path(__file__))


def test_a_workflow_is_checked_by_name(backend: SessionBackend) -> None:
    assert check_choice(backend, "vision") == "vision"
    with pytest.raises(DataError, match="Did you mean 'vision'"):
        check_choice(backend, "visoin")
