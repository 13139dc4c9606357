"""The page of `adaptkit demo` in a browser: on the run of the quickstart, and on answers that a test wrote."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adaptkit.errors import DataError
from adaptkit.serving.backends import SessionBackend
from adaptkit.serving.demo.page import Page
from adaptkit.world.scenes import iter_scenes, render
from tests.conftest import REPOSITORY

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [name for name in ("gradio", "playwright") if find_spec(name) is None] + ([] if CHROMIUM else ["Chromium"])

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.timeout(900, func_only=True),
    pytest.mark.filterwarnings("default"),
]
OPTIONS = {"max_new_tokens": 32, "temperature": 0.0, "seed": 0}
RUN = "runs/iaa_vision_tiny"
WAIT_MS = 30_000
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@dataclass
class Slow:
    """An answer that is still being written when it is stopped."""

    pieces: Sequence[str] = ("one ", "two ") * 200
    delay_s: float = 0.05
    workflow: str = "vision"
    finish_reason: str | None = "stop"
    is_cancelled: bool = False

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            if self.is_cancelled:
                return
            time.sleep(self.delay_s)
            yield piece

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Backend:
    """Gives the answers of a test, and keeps what it was asked."""

    answers: list[Slow] = field(default_factory=list)
    asked: list[list[dict[str, Any]]] = field(default_factory=list)
    choices: Sequence[str] = ("auto", "text", "vision")
    modalities: Sequence[str] | None = ("image", "audio")

    def read(self, name: str, source: Any) -> Any:
        return Image.open(source).convert("RGB") if name == "image" else None

    def ask(self, messages: Sequence[Mapping[str, Any]], workflow: str, options: Mapping[str, Any]) -> Slow:
        self.asked.append([dict(message) for message in messages])
        if workflow == "text":
            raise DataError("workflow 'text' takes <b>no</b> image.")
        return self.answers.pop(0)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """Somebody who looks at the page.

    Attributes:
        page: Of playwright.
        foreign: Addresses elsewhere that the page asked for.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.foreign: list[str] = []
        self.page.set_default_timeout(WAIT_MS)
        self.page.on(
            "request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.foreign.append(r.url)
        )
        self.page.goto(url)
        self.box = self.page.locator("[data-testid=textbox]").last
        self.box.wait_for()

    def ask(self, text: str, *files: Path) -> None:
        if files:
            self.page.set_input_files("input[type=file]", [str(path) for path in files])
            self.page.locator(".thumbnail-item, .thumbnails img").nth(len(files) - 1).wait_for()
        self.box.fill(text)
        self.box.press("Enter")

    def choose(self, workflow: str) -> None:
        """Take a workflow from the list, which closes where the end of an answer moves the focus."""
        from playwright.sync_api import TimeoutError as ClosedError

        choice = self.page.get_by_label("Workflow")
        for _ in range(5):
            choice.click()
            with suppress(ClosedError):
                self.page.get_by_role("option", name=workflow).click(timeout=3_000)
            if choice.input_value() == workflow:
                return
        pytest.fail(f"the list does not give {workflow}")

    def answers(self) -> Any:
        return self.page.locator("[data-testid=bot]")


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What gradio leaves open is closed, with a warning, where warnings are not errors."""
    yield
    gc.collect()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    page = Page(backend, "auto", OPTIONS)
    yield page.start("127.0.0.1", free_port())
    page.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, scene in zip(paths, iter_scenes(0, "test")):
        render(scene).save(path)
    return paths


def test_stop_frees_the_place_and_retry_asks_again(backend: Backend, url: str, browser: Any) -> None:
    slow = Slow()
    backend.answers = [slow, Slow(["again"], 0)]
    visitor = Visitor(browser, url)
    visitor.ask("count")
    visitor.page.get_by_text("one two").first.wait_for()
    visitor.page.get_by_label("Stop").click()
    deadline = time.monotonic() + 10
    while not slow.is_cancelled and time.monotonic() < deadline:
        time.sleep(0.05)
    assert slow.is_cancelled
    visitor.page.get_by_label("Submit").wait_for()
    visitor.page.get_by_label("Retry").click()
    visitor.page.get_by_text("again", exact=True).wait_for()
    assert backend.asked[1] == backend.asked[0] == [{"role": "user", "content": "count"}]


def test_a_visitor_who_leaves_frees_the_place(backend: Backend, url: str, browser: Any) -> None:
    slow = Slow()
    backend.answers = [slow]
    visitor = Visitor(browser, url)
    visitor.ask("count")
    visitor.page.get_by_text("one two").first.wait_for()
    visitor.page.close()
    deadline = time.monotonic() + 15
    while not slow.is_cancelled and time.monotonic() < deadline:
        time.sleep(0.05)
    assert slow.is_cancelled


def test_several_pictures_history_and_errors(backend: Backend, url: str, browser: Any, pictures: list[Path]) -> None:
    hostile = "<b>two</b> ![x](http://example.invalid/x.png) <img src='http://example.invalid/y.png'>"
    backend.answers = [Slow([hostile], 0), Slow(["three"], 0)]
    visitor = Visitor(browser, url)
    visitor.ask("how many?", *pictures)
    visitor.page.get_by_text("<b>two</b>").wait_for()
    visitor.page.get_by_label("Submit").wait_for()
    visitor.choose("text")
    visitor.ask("and now?")
    failure = visitor.page.get_by_role("alert").filter(has_text="<b>no</b> image")
    failure.wait_for()
    visitor.page.get_by_label("Submit").wait_for()
    visitor.choose("vision")
    visitor.ask("so?")
    visitor.page.get_by_text("three", exact=True).wait_for()
    first, _, third = backend.asked
    assert [part["type"] for part in first[0]["content"]] == ["image", "image", "text"]
    assert third[1:] == [{"role": "assistant", "content": hostile}, {"role": "user", "content": "so?"}]
    assert visitor.foreign == []


def test_a_recording_goes_with_the_question(backend: Backend, url: str, browser: Any) -> None:
    backend.answers = [Slow(["a beep"], 0)]
    visitor = Visitor(browser, url, permissions=["microphone"])
    for button in ("Record audio", "Start recording", "Stop recording"):
        visitor.page.get_by_label(button).click()
        visitor.page.wait_for_timeout(1_000)
    visitor.page.get_by_label("Attach audio").wait_for()
    visitor.ask("what?")
    visitor.page.get_by_text("a beep", exact=True).wait_for()
    recording, text = backend.asked[0][0]["content"]
    assert recording["audio"].startswith(b"RIFF")
    assert text["text"] == "\nwhat?"


def test_a_run_without_audio_has_no_microphone(backend: Backend, browser: Any) -> None:
    backend.modalities = ("image",)
    page = Page(backend, "auto", OPTIONS)
    assert Visitor(browser, page.start("127.0.0.1", free_port())).page.get_by_label("Record audio").count() == 0
    page.close()


def test_a_port_that_is_taken_is_named(backend: Backend, url: str) -> None:
    port = int(url.rstrip("/").rpartition(":")[2])
    with pytest.raises(DataError, match=f"{port}.*--port"):
        Page(backend, "auto", OPTIONS).start("127.0.0.1", port)


def test_a_request_cannot_name_a_file_or_an_address(backend: Backend, url: str, tmp_path: Path) -> None:
    import gradio
    import httpx

    secret = tmp_path / "secret.png"
    Image.new("RGB", (4, 4)).save(secret)
    config = httpx.get(f"{url}config").json()
    box = next(c["id"] for c in config["components"] if c["type"] == "multimodaltextbox")
    index = next(d["id"] for d in config["dependencies"] if d["inputs"] == [box] and len(d["outputs"]) == 2)

    def status_of(path: str) -> int:
        message = {"text": "x", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        body = {"data": [message], "fn_index": index, "session_hash": "s"}
        return httpx.post(f"{url}gradio_api/run/predict", json=body).status_code

    (sent,) = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.png", secret.read_bytes())}).json()
    assert status_of(sent) == 200
    assert status_of(str(secret)) >= 400
    assert status_of("http://example.invalid/x.png") >= 400
    assert httpx.get(f"{url}gradio_api/file={secret}").status_code == 403
    with pytest.raises(DataError, match="other hosts"):
        gradio.processing_utils.async_ssrf_protected_get("http://example.invalid/x.png").send(None)


@pytest.fixture(scope="module")
def run() -> Path:
    """The run of the quickstart, which is trained here where it is not there."""
    from click.testing import CliRunner

    from adaptkit.cli import cli

    folder = Path(os.environ.get("ADAPTKIT_QUICKSTART") or REPOSITORY / RUN)
    if not (folder / "final").is_dir():
        result = CliRunner().invoke(
            cli, ["train", str(REPOSITORY / "recipes/iaa_vision_tiny.yaml"), "--output", str(folder)]
        )
        assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}])
def test_the_quickstarts_run_answers_and_draws(
    run: Path, browser: Any, pictures: list[Path], options: dict[str, Any]
) -> None:
    import adaptkit

    scene = next(iter_scenes(0, "test"))
    backend = SessionBackend(adaptkit.Session.open(run))
    page = Page(backend, "auto", OPTIONS)
    try:
        visitor = Visitor(browser, page.start("127.0.0.1", free_port()), **options)
        visitor.ask("how many objects are there ?", pictures[0])
        visitor.page.locator(".by", has_text="vision").wait_for()
        assert visitor.answers().first.inner_text().strip() in ("one", "two", "three")
        visitor.choose("grounding")
        visitor.ask(f"where is the {scene.objects[0].color} {scene.objects[0].shape} ?")
        visitor.page.locator(".by", has_text="grounding").wait_for()
        drawn = visitor.page.locator("[data-testid=bot] img")
        drawn.last.wait_for()
        assert drawn.count() == 1
        assert visitor.foreign == []
        width = visitor.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1]
    finally:
        page.close()
        backend.close()
