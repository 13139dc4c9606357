"""Processes of vLLM, one for each stock checkpoint, which end with this process."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import httpx

from adaptkit.errors import RunError, join_lines, keep_secret

HOST = "127.0.0.1"
KEY_VARIABLE = "VLLM_API_KEY"
"""By which vLLM takes its key, so that no other user of the machine asks it."""
_WATCHED = Path(__file__).with_name("watched.py")
_MEMORY_SHARE = 0.9
_POLL_S = 0.5
_STOP_S = 30
_OF_OUR_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class Engine:
    """One process.

    Args:
        name: Of the workflow, and of the model that it serves.
        command: With all arguments.
        port: On loopback, where it will answer.
        key: What it wants as a bearer token.
        log_file: For what it writes.
        on_end: Called with a sentence where it ends by itself.
    """

    def __init__(
        self, name: str, command: list[str], port: int, key: str, log_file: Path, on_end: Callable[[str], None]
    ) -> None:
        self.name, self.key, self.log_file = name, key, log_file
        self.url = f"http://{HOST}:{port}"
        self._stopping = False
        self._log: IO[bytes] = log_file.open("wb")
        environment = {name: value for name, value in os.environ.items() if name not in _OF_OUR_PYTHON}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WATCHED), *command],
            stdin=subprocess.PIPE,  # held open: the engine ends when it closes
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which finishes what runs
            env=environment | {KEY_VARIABLE: key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
        )
        threading.Thread(target=self._report, args=(on_end,), daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise a `RunError` where the process is gone."""
        if not self.is_running:
            raise RunError(f"{self._ended()}.")

    def wait(self, timeout_s: float) -> None:
        """Wait until it answers.

        Raises:
            RunError: It ended, or the time did.
        """
        end = time.monotonic() + timeout_s
        with httpx.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < end:
                if not self.is_running:
                    raise RunError(join_lines([f"{self._ended()}. Its last lines:", *self._last_lines()]))
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(_POLL_S)
        raise RunError(f"the engine of {self.name!r} did not answer within {timeout_s:g} seconds; see {self.log_file}.")

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _report(self, on_end: Callable[[str], None]) -> None:
        self._process.wait()
        if not self._stopping:
            on_end(f"{self._ended()}; requests for it are answered with status 503.")

    def _ended(self) -> str:
        return f"the engine of {self.name!r} ended with code {self._process.returncode}; see {self.log_file}"

    def _last_lines(self) -> list[str]:
        return self.log_file.read_text("utf-8", errors="replace").strip().splitlines()[-5:]


@contextmanager
def engines(
    folders: Mapping[str, Path],
    command: str,
    *,
    log_dir: Path,
    max_batch_size: int,
    timeout_s: float,
    on_start: Callable[[str], None],
    on_end: Callable[[str], None],
) -> Iterator[dict[str, Engine]]:
    """Start vLLM on each stock checkpoint, one after the other, as each measures the memory that is left to it.

    Args:
        folders: The checkpoints, by the name of what each serves.
        command: Such as `vllm serve`, with further arguments of vLLM.
        log_dir: Gets a log for each.
        max_batch_size: Requests that each runs at once.
        timeout_s: Within which each must answer.
        on_start: Called with the name of each that is being started.
        on_end: Called with a sentence about each that ends by itself.

    Raises:
        RunError: The command is none, or an engine does not start; those that run are stopped.
    """
    words = _split(command)
    log_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        started: dict[str, Engine] = {}
        for name, folder in folders.items():
            on_start(name)
            port, key = _free_port(), secrets.token_hex(16)
            keep_secret(key, "an engine's key")
            options = _options(words, name, port, max_batch_size, len(folders))
            engine = Engine(name, _whole(words, folder, options), port, key, log_dir / f"{name}.log", on_end)
            started[name] = engine
            stack.callback(engine.stop)
            engine.wait(timeout_s)
        yield started


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise RunError(f"the command of vLLM, {command!r}, is not a command line: {error}.") from error
    if not words:
        raise RunError("the command of vLLM is empty. Give one such as 'vllm serve'.")
    return words


def _options(words: list[str], name: str, port: int, max_batch_size: int, num_engines: int) -> list[str]:
    """Arguments that every engine gets; those that share a device share its memory where the command does not say."""
    given = {word.partition("=")[0] for word in words}
    options = {"--max-num-seqs": str(max_batch_size), "--gpu-memory-utilization": _share(num_engines)}
    options = {option: value for option, value in options.items() if option not in given}
    options |= {
        "--served-model-name": name,
        "--host": HOST,
        "--port": str(port),
        "--generation-config": "vllm",  # requests say all that the workflow's own would
        "--chat-template-content-format": "openai",
    }
    return [word for pair in options.items() for word in pair]


def _share(num_engines: int) -> str:
    return f"{int(100 * _MEMORY_SHARE / num_engines) / 100:.2f}"


def _whole(words: list[str], folder: Path, options: list[str]) -> list[str]:
    """`vllm serve` takes the model behind its name; the module `vllm.entrypoints.openai.api_server` as an option."""
    if "serve" in words:
        place = words.index("serve") + 1
        return [*words[:place], str(folder), *words[place:], *options]
    return [*words, "--model", str(folder), *options]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port
