"""What the machine did is said as such, in Python and on the command line, and closed output ends nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from adaptkit.cli.group import explain
from adaptkit.cli.streams import guard_output
from adaptkit.cli.terminal import echo, echo_json
from adaptkit.errors import RunError
from adaptkit.files.failures import LOWER, machine_failures
from adaptkit.hookspecs import MAX_SEED
from tests.stages import stage_config

FAILURES = {
    "host memory": (MemoryError(), "too little memory"),
    "host memory, torch": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to "
                     "allocate 4096000 bytes. Error code 12 (Cannot allocate memory)"),
        "4096000 bytes",
    ),
    "GPU": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …"),
        "the GPU has too little memory (2.50 GiB",
    ),
    "a killed data worker": (
        RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. "), "dataloader_num_workers",
    ),
    "a lost data worker": (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), "was killed"),
    "too many files": (OSError(errno.EMFILE, "Too many open files", "/data/x.png"), "ulimit -n"),
    "no home": (RuntimeError("Could not determine home directory."), "HOME"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device", "/runs/x/metrics.jsonl"), "/runs/x/metrics.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_the_machine_is_no_bug_of_adaptkit(name: str) -> None:
    error, words = FAILURES[name]
    message, exit_code = explain(error)
    assert message is not None
    assert "bug" not in message
    assert words in message
    assert exit_code == 1


def test_training_says_what_to_lower() -> None:
    with (
        pytest.raises(RunError, match="stage 'align': the GPU has") as caught,
        machine_failures("stage 'align'", LOWER),
    ):
        raise FAILURES["GPU"][0]
    assert "per_device_train_batch_size" in str(caught.value)
    with pytest.raises(ZeroDivisionError), machine_failures("stage 'align'"):
        _ = 1 / 0


@pytest.mark.parametrize("seed", [2**32, -1, 1.5])
def test_seeds_are_checked_in_python(seed: object) -> None:
    with pytest.raises(ValidationError, match="seed"):
        stage_config(seed=seed)
    assert stage_config(seed=MAX_SEED).seed == MAX_SEED


@pytest.fixture(params=["buffered", "unbuffered"])
def piped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard output is a pipe that nobody reads any more, in ASCII; gives its descriptor."""
    reader, writer = os.pipe()
    os.close(reader)
    raw = io.FileIO(writer, "w", closefd=False)
    buffer: Any = io.BufferedWriter(raw) if request.param == "buffered" else raw
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii", write_through=buffer is raw))
    return writer


@pytest.fixture(autouse=True)
def own_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to standard error is undone."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)


def test_output_that_nobody_reads_is_dropped(piped: int) -> None:
    guard_output()
    for _ in range(3):
        echo("a step")
        print("x" * 100_000, flush=True)
    sys.stdout.flush()


def test_an_alphabet_that_lacks_characters_escapes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        guard_output()
        echo("é 猫")
        echo_json({"word": "é 猫"})
        sys.stdout.flush()
        monkeypatch.undo()
    first, *rest = (tmp_path / "out").read_text(encoding="ascii").splitlines()
    assert first == "\\xe9 \\u732b"
    assert json.loads("\n".join(rest)) == {"word": "é 猫"}


def test_a_closed_standard_output_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    guard_output()
    echo("a step")
    opened = sys.stdout
    monkeypatch.undo()
    opened.close()
