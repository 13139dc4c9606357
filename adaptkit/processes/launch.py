"""Starting the processes of a run on one machine: what `adaptkit train --num-processes N` does.

Output is that of the main process. Where a run fails, the process whose error came first is heard, once; the others
lose it and fail too. Each process leaves its error in a folder of the launcher's instead of printing it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from adaptkit.files.writing import write_json

COMMAND = (sys.executable, "-m", "adaptkit")

REPORT_VARIABLE = "ADAPTKIT_REPORTS"
"""Folder in which a process leaves its error."""

GRACE_S = 15.0
"""How long processes have to end by themselves once one has failed."""

_POLL_S = 0.05
_NUM_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        exit_code: That of the process which failed first; 0 where none did.
        message: What it had to say; None where it has said so itself.
        is_error: Whether that is an error.
    """

    exit_code: int
    message: str | None = None
    is_error: bool = True


def leave_report(message: str, exit_code: int, *, is_error: bool, is_echo: bool) -> bool:
    """Leave an error to the launcher to print.

    Args:
        message: The error.
        exit_code: Of this process.
        is_error: Whether it is one; a run that was asked to stop is none.
        is_echo: Whether it only follows from the end of another process.

    Returns:
        Whether there is a launcher.
    """
    folder = os.environ.get(REPORT_VARIABLE)
    if folder is None:
        return False
    values = {"message": message, "exit_code": exit_code, "is_error": is_error, "is_echo": is_echo, "time": time.time()}
    write_json(Path(folder) / f"{os.environ['RANK']}.json", values)
    return True


def end_with_launcher() -> None:
    """End this process when its launcher is gone, which a SIGKILL gives no chance to pass on."""
    if REPORT_VARIABLE in os.environ and os.name == "posix":
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def launch(num_processes: int, arguments: Sequence[str]) -> Outcome:
    """Run the command line in several processes, and wait for all of them.

    Args:
        num_processes: How many.
        arguments: Of `adaptkit`, as the user gave them.
    """
    with tempfile.TemporaryDirectory(prefix="adaptkit-launch-") as folder:
        processes = [_start(rank, num_processes, arguments, Path(folder)) for rank in _ranks(num_processes)]
        with _passing_on_signals(processes):
            first = _wait(processes)
        return _outcome(processes, first, Path(folder))


def _ranks(num_processes: int) -> range:
    os.environ["MASTER_PORT"] = str(_free_port())
    return range(num_processes)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _start(rank: int, num_processes: int, arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else DDP warns where every part learned from a batch
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        REPORT_VARIABLE: str(folder),
    }
    command = [*COMMAND, *arguments]
    options: dict[str, Any] = {"env": environment, "start_new_session": True}  # signals come from the launcher alone
    if rank == 0:
        return subprocess.Popen(command, **options)
    with (folder / f"{rank}.err").open("wb") as errors:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, **options)


@contextmanager
def _passing_on_signals(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all; end the rest some time after one has failed. Gives the first that did."""
    first, deadline = None, 0.0
    while None in [process.poll() for process in processes]:
        if first is None:
            first = next((rank for rank, process in enumerate(processes) if process.returncode), None)
            deadline = time.monotonic() + GRACE_S
        elif time.monotonic() > deadline:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(_POLL_S)
    return first if first is not None else next((rank for rank, p in enumerate(processes) if p.returncode), None)


def _outcome(processes: Sequence[subprocess.Popen[bytes]], first: int | None, folder: Path) -> Outcome:
    if first is None:
        return Outcome(0)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    own = [report for report in reports if not report["is_echo"]]
    if own:
        report = min(own, key=lambda report: report["time"])
        return Outcome(report["exit_code"], report["message"], report["is_error"])
    code = processes[first].returncode
    said = folder / f"{first}.err"
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()[-_NUM_LINES:] if said.is_file() else []
    if code < 0:
        name = signal.Signals(-code).name
        hint = " Was there too little memory?" if -code == signal.SIGKILL else ""
        ended = f"process {first} of {len(processes)} was ended by {name}.{hint} Continue with --resume auto."
        return Outcome(128 - code, "\n".join([ended, *lines]))
    if reports:
        return Outcome(code, reports[0]["message"])
    return Outcome(code, "\n".join([f"process {first} of {len(processes)} failed:", *lines]) if lines else None)
