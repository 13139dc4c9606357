"""Runs a command that ends with whoever started this: when standard input closes, however that came about.

A script of its own, without imports of adaptkit: `python watched.py COMMAND ...`
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0


def main(command: list[str]) -> int:
    """Run a command in a process group of its own until it ends, or standard input does."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(process))
    threading.Thread(target=_follow_input, args=(process,), daemon=True).start()
    code = process.wait()
    _signal(process, signal.SIGKILL)  # what it has left behind
    return code if code >= 0 else 128 - code


def _follow_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGTERM)
    killer = threading.Timer(GRACE_S, _signal, (process, signal.SIGKILL))
    killer.daemon = True
    killer.start()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it is gone
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
