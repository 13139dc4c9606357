"""Every block of Python, YAML, JSON and `adaptkit ...` in the documentation runs, page by page, as a reader would.

A page's blocks share a folder, and its Python blocks share their names. Training of the miniature recipe is cut to
a few steps, once for all pages; a page that builds on a run finds it where the tutorial leaves it.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.plugin_manager import set_plugin_manager
from adaptkit.recipe import load_recipe
from tests.docs.blocks import NOT_CODE, REPOSITORY, RUN_HERE, Block, blocks, changed, pages
from tests.hub.client import connected
from tests.hub.server import running_hub

PAGES = [page for page in pages() if any(block.language in RUN_HERE and not block.skip for block in blocks(page))]
TINY = "recipes/iaa_vision_tiny.yaml"
RUN = Path("runs/iaa_vision_tiny")
DEFAULT_ADDRESS = "127.0.0.1:8000"
SHORT = [
    *(f"stages.{stage}.max_steps=2" for stage in ("align", "pretrain", "instruct", "ground")),
    *(f"data.world_{data}.num_samples=64" for data in ("captions", "questions", "boxes")),
    "data.world_questions.num_images=64",
    *(f"stages.{stage}.train_batch_size=4" for stage in ("align", "pretrain", "instruct", "ground")),
    "evaluation.limit=2",
]
SHORTER = {
    "sensor.yaml": ["stages.align.max_steps=2", "stages.learn.max_steps=2", "evaluation.limit=4"],
    "machines.yaml": [
        *("stages.align.max_steps=2", "stages.learn.max_steps=2", "stages.learn.validation.every=2"),
        "evaluation.limit=4",
    ],
    "encoder.yaml": ["training.num_steps=10", "training.evaluate_every=10"],
}
"""What shortens the training of recipes that pages write."""


def run_cli(arguments: list[str]) -> str:
    typed = ""
    if "<" in arguments:
        *arguments, _, file = arguments
        typed = Path(file).read_text(encoding="utf-8")
    result = CliRunner().invoke(cli, arguments, input=typed, catch_exceptions=False)
    assert result.exit_code == 0, f"adaptkit {shlex.join(arguments)}\n{result.output}"
    return result.output


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the tutorial leaves behind, trained for a moment."""
    folder = tmp_path_factory.mktemp("tutorial")
    before = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        run_cli(["train", TINY, *SHORT, "--output", str(folder / "run")])
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a page is worked through: a checkout, as far as pages look at it."""
    for name in ("docs", "recipes", "Makefile"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # undone in any case
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)
    yield tmp_path
    set_plugin_manager(None)  # a page may have registered a plugin of its own, or installed one
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def install(package: str) -> None:
    """`pip install` into a folder of the page; what lies there is found here and in processes started from here."""
    folder = Path("site").resolve()
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), Path(package).resolve()], check=True
    )
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    set_plugin_manager(None)


class Session:
    """One reader working through one page.

    Args:
        run: A finished run to find under `runs/`, where the page needs one.
    """

    def __init__(self, run: Path | None) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.servers: list[subprocess.Popen[str]] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if run is not None:
            shutil.copytree(run, RUN)

    def close(self) -> None:
        """Stop what the page has started."""
        for server in self.servers:
            server.terminate()
            server.communicate()

    def run(self, block: Block) -> None:
        block = replace(block, code=block.code.replace(DEFAULT_ADDRESS, f"127.0.0.1:{self.port}"))
        if not block.title:
            getattr(self, block.language)(block)
        elif block.language == "diff":
            path = Path(block.title)
            path.write_text(changed(path.read_text(encoding="utf-8"), block.code), encoding="utf-8")
        else:
            Path(block.title).write_text(block.code, encoding="utf-8")

    def python(self, block: Block) -> None:
        exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), self.names)

    def serve(self, arguments: list[str]) -> None:
        """Start a server that stays until the page is done, on a port that is free."""
        command = [sys.executable, "-m", "adaptkit", *arguments, "--port", str(self.port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stdout
        assert any("Serving on" in line for line in iter(server.stdout.readline, "")), shlex.join(command)

    def bash(self, block: Block) -> None:
        if "curl " in block.code:
            Path(".curlrc").write_text("fail-with-body\n")  # an answer of 400 is an error here
            environment = {**os.environ, "CURL_HOME": "."}
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True, env=environment)
            return
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            program, *arguments = words
            if program == "make":
                subprocess.run(["make", "--dry-run", *arguments], check=True, capture_output=True, cwd=REPOSITORY)
                continue
            if program == "hf":
                program = str(Path(sys.executable).with_name(program))  # the environment's own
                subprocess.run([program, *arguments], check=True, capture_output=True)
                continue
            if program == "python":
                with patch.object(sys, "argv", arguments):
                    runpy.run_path(arguments[0], run_name="__main__")
                continue
            if program == "pip":
                assert arguments[0] == "install", line
                install(arguments[-1])
                continue
            assert program in ("adaptkit", ".venv/bin/adaptkit"), (
                f"{block.place}: cannot run {line!r}; mark it data-skip"
            )
            if arguments[0] == "serve":
                self.serve(arguments)
                continue
            if arguments[0] == "train" and not {"--dry-run", "--rehearse"} & set(arguments):
                if arguments[1] == TINY:
                    continue  # `short_run` did it
                arguments += SHORTER.get(arguments[1], SHORT)
            if arguments[0] == "train-encoder":
                arguments += SHORTER[arguments[1]]
            run_cli(arguments)

    def yaml(self, block: Block) -> None:
        values = yaml.safe_load(block.code)
        path = Path(f"{values.get('name', 'recipe')}.yaml")
        path.write_text(block.code, encoding="utf-8")
        load_recipe(path)

    def json(self, block: Block) -> None:
        json.loads(block.code)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on this machine in place of the real one."""
    with running_hub() as found:
        connected(monkeypatch, found, tmp_path / "hub-cache")
        yield


def page_name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(900, func_only=True)
def test_a_page_runs(page: Path, reader: Path, request: pytest.FixtureRequest) -> None:
    found = [block for block in blocks(page) if (block.language in RUN_HERE or block.title) and not block.skip]
    if any("push_to_hub" in block.code for block in found):
        request.getfixturevalue("hub")
    needs_run = any(str(RUN) in block.code for block in found)
    session = Session(request.getfixturevalue("short_run") if needs_run else None)
    try:
        for block in found:
            try:
                session.run(block)
            except BaseException as error:
                error.add_note(f"in the block at {block.place}")
                raise
    finally:
        session.close()


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in RUN_HERE | NOT_CODE, f"{block.place}: unknown kind of block {block.language!r}"
        assert not block.skip or len(block.skip.split()) >= 3, f"{block.place}: a skipped block gives a reason"


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_recipes_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"recipes/[\w/]+\.yaml", page.read_text(encoding="utf-8")):
        assert (REPOSITORY / name).is_file(), f"{page_name(page)} names {name}"
