"""Starts the processes of a run on one machine with torch elastic: `adaptkit train --num-processes N`.

Only the main process writes to the terminal. Each process leaves its error in its torch elastic error file instead of
printing it, and the launcher prints the first one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from adaptkit.files.writing import write_json

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import RunProcsResult
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

COMMAND = (sys.executable, "-m", "adaptkit")

LAUNCHED_VARIABLE = "ADAPTKIT_LAUNCHED"
"""Set in processes whose launcher prints their errors, which torchrun, with error files of its own, does not."""

_POLL_S = 0.05
_NUM_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        exit_code: Of the process that failed first; 0 if none did.
        message: Its error; None if it has already been printed.
        is_error: False for a run that was asked to stop.
    """

    exit_code: int
    message: str | None = None
    is_error: bool = True


def leave_report(message: str, exit_code: int, *, is_error: bool, is_secondary: bool) -> bool:
    """Leave an error for the launcher to print.

    Args:
        is_secondary: Whether the error only follows from the end of another process.

    Returns:
        Whether there is a launcher that prints it.
    """
    if LAUNCHED_VARIABLE not in os.environ:
        return False
    outcome = {"message": message, "exit_code": exit_code, "is_error": is_error}
    report = {**outcome, "is_secondary": is_secondary, "timestamp": time.time()}
    write_json(os.environ["TORCHELASTIC_ERROR_FILE"], report)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an exception would have nothing left to clean up
    return True


def end_with_launcher() -> None:
    """End this process when its launcher asks for it by SIGTERM, or is killed, which torch elastic does not notice."""
    if LAUNCHED_VARIABLE in os.environ and os.name == "posix":
        signal.signal(signal.SIGTERM, _exit)
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # an exception restores the terminal and removes staged files


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def launch(num_processes: int, arguments: Sequence[str]) -> Outcome:
    """Run the command line in several processes, and wait for all of them."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes  # slow to import

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    ranks = range(num_processes)
    environment = _environment(num_processes)
    with tempfile.TemporaryDirectory(prefix="adaptkit-launch-") as folder:
        context: Any = start_processes(
            "adaptkit",
            COMMAND[0],
            args=dict.fromkeys(ranks, (*COMMAND[1:], *arguments)),
            envs={rank: {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in ranks},
            logs_specs=DefaultLogsSpecs(folder, dict.fromkeys(ranks[1:], Std.ERR), local_ranks_filter={0}),
        )
        _pass_on_signals([handler.proc for handler in context.subprocess_handlers.values()])
        return _outcome(context.wait(period=_POLL_S), num_processes)


def _environment(num_processes: int) -> dict[str, str]:
    from torch.distributed.elastic.utils.distributed import get_free_port

    defaults = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_processes)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP warns if no parameter was unused in a step
    }
    return {
        **{name: os.environ.get(name, value) for name, value in defaults.items()},
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),  # type: ignore[no-untyped-call]
        LAUNCHED_VARIABLE: "1",
    }


def _pass_on_signals(processes: Sequence[Any]) -> None:
    """Replace torch elastic's handlers, which stop waiting: its agent kills what takes over 30 seconds to save."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), pass_on)


def _outcome(result: RunProcsResult, num_processes: int) -> Outcome:
    failures = list(result.failures.values())  # in the order in which the processes ended
    reports = [failure.error_file_data for failure in failures if _has_report(failure)]
    primary = [report for report in reports if not report["is_secondary"]]
    silent = [failure for failure in failures if not _has_report(failure)]
    if primary or (reports and not silent):
        report = min(primary or reports, key=lambda report: report["timestamp"])
        return Outcome(report["exit_code"], report["message"], report["is_error"])
    return _silent_end(silent[0], result, num_processes) if silent else Outcome(0)


def _has_report(failure: ProcessFailure) -> bool:
    return "is_secondary" in failure.error_file_data


def _silent_end(failure: ProcessFailure, result: RunProcsResult, num_processes: int) -> Outcome:
    """What is known of a process that left no report."""
    process = f"process {failure.local_rank} of {num_processes}"
    path = result.stderrs[failure.local_rank]  # empty for the main process, whose errors are on the terminal
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[-_NUM_LINES:] if path else []
    if failure.exitcode < 0:
        hint = " Was there too little memory?" if failure.exitcode == -signal.SIGKILL else ""
        ended = f"{process} was ended by {failure.signal_name()}.{hint} Continue with --resume auto."
        return Outcome(128 - failure.exitcode, "\n".join([ended, *lines]))
    return Outcome(failure.exitcode, "\n".join([f"{process} failed:", *lines]) if lines else None)
