"""A server behind `--url`: what it is sent, and what is said of one that refuses, breaks off, or is none."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from adaptkit.errors import DataError, RunError
from adaptkit.serving.remote import ServerBackend
from tests.unit.serving.scripted import Script, scripted_server

pytest.importorskip("openai")

QUESTION = [{"role": "user", "content": "how many?"}]


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted_server() as script:
        yield script


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 2)).save(file, kind)
    return file.getvalue()


def test_an_answer_comes_in_pieces_and_says_who_gave_it(script: Script) -> None:
    backend = ServerBackend(script.url)
    assert backend.choices == ["auto", "text", "vision"]
    reply = backend.ask(QUESTION, "auto", {"max_new_tokens": 5, "temperature": 0.0, "seed": 3})
    assert list(reply) == ["three ", "shapes"]
    assert (reply.workflow, reply.finish_reason) == ("vision", "length")
    assert script.bodies[0] == {
        "model": "auto", "messages": QUESTION, "stream": True, "max_tokens": 5, "temperature": 0.0, "seed": 3,
    }  # fmt: skip


def test_media_travel_as_the_protocol_wants_them(script: Script) -> None:
    parts = [
        {"type": "image", "image": picture("JPEG")},
        {"type": "audio", "audio": b"RIFF...."},
        {"type": "timeseries", "timeseries": b"1,2"},
        {"type": "text", "text": "\nwhat?"},
    ]
    list(ServerBackend(script.url).ask([{"role": "user", "content": parts}], "auto", {}))
    image, audio, series, text = script.bodies[0]["messages"][0]["content"]
    url = f"data:image/jpeg;base64,{base64.b64encode(picture('JPEG')).decode()}"
    assert image == {"type": "image_url", "image_url": {"url": url}}
    assert audio == {
        "type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF....").decode(), "format": "wav"},
    }  # fmt: skip
    assert series == {"type": "timeseries", "timeseries": {"data": base64.b64encode(b"1,2").decode()}}
    assert text == parts[-1]


def test_no_key_of_another_service_is_sent(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    ServerBackend(script.url)
    ServerBackend(script.url, "the key of this one")
    assert script.keys == ["Bearer none", "Bearer the key of this one"]


def test_a_key_is_shown_in_no_message(script: Script) -> None:
    script.failure = (401, "wrong key secret-of-a-user")
    with pytest.raises(DataError, match=r"--api-key") as caught:
        ServerBackend(script.url, "secret-of-a-user")
    assert "secret-of-a-user" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, DataError), (413, DataError), (429, RunError), (500, RunError), (503, RunError)]
)
def test_what_a_server_refuses_is_said_in_its_words(script: Script, status: int, kind: type[Exception]) -> None:
    backend = ServerBackend(script.url)
    script.failure = (status, "the picture has 9 eyes")
    with pytest.raises(kind, match="the picture has 9 eyes"):
        backend.ask(QUESTION, "auto", {})


def test_an_answer_that_breaks_off_is_an_error(script: Script) -> None:
    script.is_broken = True
    reply = iter(ServerBackend(script.url).ask(QUESTION, "auto", {}))
    assert [next(reply), next(reply)] == ["three ", "shapes"]
    with pytest.raises(RunError, match=script.url):
        next(reply)


def test_models_are_chosen_by_name(script: Script) -> None:
    assert ServerBackend(script.url, model="vision").choices == ["vision", "text", "auto"]
    with pytest.raises(DataError, match=r"'visoin'.*'vision'"):
        ServerBackend(script.url, model="visoin")
    script.models = None
    assert ServerBackend(script.url, model="any").choices == ["any"]
    with pytest.raises(DataError, match="--model"):
        ServerBackend(script.url)


def test_a_server_may_tell_what_it_takes(script: Script) -> None:
    assert ServerBackend(script.url).modalities is None
    script.modalities = ("image",)
    backend = ServerBackend(script.url)
    assert backend.modalities == ["image"]
    with pytest.raises(DataError, match=r"'audio'.*image"):
        backend.read("audio", io.BytesIO(b"RIFF"))


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://127.0.0.1", "http://", "http://[::1", "http://h:99999"])
def test_an_address_is_checked_before_anything_is_sent(url: str) -> None:
    with pytest.raises(DataError, match="address"):
        ServerBackend(url)


def test_a_server_that_is_not_there_is_named(script: Script) -> None:
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9.* does not answer"):
        ServerBackend("http://127.0.0.1:9")
    with pytest.raises(DataError, match="/other lists no models"):
        ServerBackend(f"{script.url}/other")


def test_what_is_no_picture_is_not_sent(script: Script) -> None:
    backend = ServerBackend(script.url)
    assert backend.read("image", io.BytesIO(picture())).size == (4, 2)
    with pytest.raises(DataError, match="not a picture"):
        backend.ask([{"role": "user", "content": [{"type": "image", "image": b"GIF89"}]}], "auto", {})
    assert not script.bodies
