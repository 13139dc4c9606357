"""Standard output and error that never end a command: a closed pipe swallows, a small alphabet escapes."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET)
"""What writing to a pipe that nobody reads, or to a terminal that was closed, gives."""


_replaced: list[TextIO] = []
"""Kept, since a stream that is forgotten closes what it wrote to."""


class _Dropping(io.FileIO):
    """A file whose writes are dropped once nobody reads any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


def retire_output() -> None:
    """Send what is printed while the process exits to standard error: the answer of a command is complete."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.dup2(2, 1)
    sys.stdout = sys.stderr


def guard_output() -> None:
    """Let commands go on where their output cannot be read or shown, such as `adaptkit train … | head -1`.

    Characters that the encoding lacks are written as escapes.
    """
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:  # closed before the start: what is opened next must not take its place
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and isinstance(stream.buffer, io.BufferedWriter | io.FileIO):
            stream.flush()
            _replaced.append(stream)
            raw = _Dropping(stream.fileno(), "w", closefd=False)
            unbuffered = isinstance(stream.buffer, io.FileIO)  # as PYTHONUNBUFFERED wants it
            guarded = io.TextIOWrapper(
                raw if unbuffered else io.BufferedWriter(raw),
                stream.encoding,
                "backslashreplace",
                line_buffering=name == "stderr" or stream.line_buffering,
                write_through=unbuffered,
            )
            setattr(sys, name, guarded)
