"""The undecoded bytes of a recording, from wherever they are."""

from __future__ import annotations

import base64
import binascii
import re
import stat
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit_audio import AudioOptions

ACCEPTED = (
    "a path, bytes, a binary file object, a data URI, (array, sampling_rate), or {'array': ..., 'sampling_rate': ...}"
)
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[^,]*)?;base64,", re.IGNORECASE)
_URL = re.compile(r"(https?|ftp|file)://", re.IGNORECASE)


def read_bytes(source: Any, options: AudioOptions) -> tuple[bytes, str]:
    """The bytes of an encoded recording, and what to call it in messages.

    Raises:
        DataError: It is missing, empty, too large, or no such source.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        raw, where = bytes(source), f"the recording given as {len(source):,} bytes"
    elif isinstance(source, str) and source[:5].lower() == "data:":
        raw, where = _decode_uri(source, options), "the recording given as a data URI"
    elif isinstance(source, str | Path):
        raw, where = _read_file(source, options), str(source)
    elif hasattr(source, "read"):
        raw, where = _read_object(source, options)
    else:
        raise DataError(f"cannot read a recording from {type(source).__name__}: give {ACCEPTED}.")
    if not raw:
        raise DataError(f"{where} is empty.")
    _check_bytes(len(raw), where, options)
    return raw, where


def _read_file(source: str | Path, options: AudioOptions) -> bytes:
    if isinstance(source, str) and _URL.match(source):
        raise DataError(f"{source}: recordings are not fetched from URLs. Download it and give its path.")
    try:
        path = Path(source).expanduser()
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a device or pipe could be read without end
            raise DataError(f"{source} is a folder or device, not a recording.")
        _check_bytes(status.st_size, str(source), options)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"no recording at {source}. Check the path, or the folder set for media.") from error
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL in the name, no home folder
        raise DataError(f"cannot read {str(source)!r}: {error}.") from error


def _read_object(source: Any, options: AudioOptions) -> tuple[bytes, str]:
    where = str(getattr(source, "name", None) or f"the recording given as {type(source).__name__}")
    if hasattr(source, "seek"):
        source.seek(0)
    raw = source.read(options.max_bytes + 1)
    if hasattr(source, "seek"):
        source.seek(0)
    if not isinstance(raw, bytes):
        raise DataError(f"{where} was opened as text: open it in binary mode, 'rb'.")
    return raw, where


def _decode_uri(source: str, options: AudioOptions) -> bytes:
    header = _DATA_URI.match(source)
    if header is None:
        raise DataError(f"data URI {source[:32]!r}… is not of the form data:audio/…;base64,….")
    _check_bytes((len(source) - header.end()) * 3 // 4, "the recording given as a data URI", options)
    try:
        return base64.b64decode(source[header.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"the recording given as a data URI is not valid base64: {error}.") from error


def _check_bytes(num_bytes: int, where: str, options: AudioOptions) -> None:
    if num_bytes > options.max_bytes:
        raise DataError(
            f"{where} is larger than the limit of {options.max_bytes:,} bytes (max_bytes). Cut it; more than "
            f"{options.max_seconds:g} seconds (max_seconds) are refused in any case."
        )
