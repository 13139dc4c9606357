"""Processes forked from one that has imported everything: what takes long is done once.

Only for processes that have not started threads yet, that is, those that run a script of this folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable

import torch

HANG_S = 200
"""Far more than any of the runs takes; a hang ends here."""


def forked(num_processes: int, work: Callable[[], None]) -> list[int]:
    """Run something in several processes, as one run; their exit codes, negative for signals.

    Once one is killed the others are too, as when a machine goes.
    """
    port = _free_port()
    pids = [_start(rank, num_processes, port, work) for rank in range(num_processes)]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + HANG_S
    while len(codes) < num_processes:
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if any(code < 0 for code in codes.values()) or time.monotonic() > deadline:
            for pid in set(pids) - set(codes):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def _start(rank: int, num_processes: int, port: int, work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        if num_processes > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
            os.environ.update({name: str(value) for name, value in names.items()})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
