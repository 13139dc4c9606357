"""The raw bytes of an item from a path, bytes, a file object or a data URI."""

from __future__ import annotations

import base64
import binascii
import re
import stat
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError

_DATA_URI = re.compile(r"data:([\w.+-]+(/[\w.+-]+)?)?(;[^,]*)?;base64,", re.IGNORECASE)
MISSING = "missing_media"
_URL = re.compile(r"(https?|ftp|file)://", re.IGNORECASE)


class SourceReader:
    """Reads bytes from a path, bytes, a binary file object or a base64 data URI; nothing is fetched.

    Args:
        noun: What an item is called in messages, `"picture"`.
        accepted: What `load` of the modality takes, for messages.
        max_bytes: Size beyond which a source is refused, a file before it is read.
        plural: Of the noun, where an `s` does not make it.
        hint: What to do about a source that is too large.
    """

    def __init__(self, noun: str, accepted: str, max_bytes: int, *, plural: str = "", hint: str = "") -> None:
        self._noun = noun
        self._plural = plural or f"{noun}s"
        self._accepted = accepted
        self._max_bytes = max_bytes
        self._hint = hint

    def read(self, source: Any) -> tuple[bytes, str]:
        """The content of a source, and what to call it in messages.

        Raises:
            DataError: It is missing, empty, too large, or of another type.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            raw, where = bytes(source), f"the {self._noun} given as {len(source):,} bytes"
        elif isinstance(source, str) and source[:5].lower() == "data:":
            raw, where = self._decode_uri(source), f"the {self._noun} given as a data URI"
        elif isinstance(source, str | Path):
            raw, where = self._read_file(source), str(source)
        elif hasattr(source, "read"):
            raw, where = self._read_object(source)
        else:
            raise DataError(f"cannot read a {self._noun} from {type(source).__name__}: give {self._accepted}.")
        if not raw:
            raise DataError(f"{where} is empty.")
        self._check_size(len(raw), where)
        return raw, where

    def _read_file(self, source: str | Path) -> bytes:
        if isinstance(source, str) and _URL.match(source):
            raise DataError(
                f"{source}: {self._plural} are not fetched from URLs. Download it and give its path.", kind=MISSING
            )
        try:
            path = Path(source).expanduser()
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a device or pipe could be read without end
                raise DataError(f"{source} is a folder or device, not the file of a {self._noun}.")
            self._check_size(status.st_size, str(source))
            with path.open("rb") as file:  # some files are longer than their status says
                return file.read(self._max_bytes + 1)
        except FileNotFoundError as error:
            message = f"no {self._noun} at {source}. Check the path, or the folder set for media."
            raise DataError(message, kind=MISSING) from error
        except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL in the name, no home folder
            raise DataError(f"cannot read {str(source)!r}: {error}.") from error

    def _read_object(self, source: Any) -> tuple[bytes, str]:
        where = str(getattr(source, "name", None) or f"the {self._noun} given as {type(source).__name__}")
        if hasattr(source, "seek"):
            source.seek(0)
        raw = source.read(self._max_bytes + 1)
        if hasattr(source, "seek"):
            source.seek(0)
        if not isinstance(raw, bytes):
            raise DataError(f"{where} was opened as text: open it in binary mode, 'rb'.")
        return raw, where

    def _decode_uri(self, source: str) -> bytes:
        header = _DATA_URI.match(source)
        if header is None:
            raise DataError(f"data URI {source[:32]!r}… is not of the form data:TYPE/…;base64,….")
        where = f"the {self._noun} given as a data URI"
        self._check_size((len(source) - header.end()) * 3 // 4, where)
        try:
            return base64.b64decode("".join(source[header.end() :].split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{where} is not valid base64: {error}.") from error

    def _check_size(self, num_bytes: int, where: str) -> None:
        if num_bytes > self._max_bytes:
            limit = f"{where} is larger than the limit of {self._max_bytes:,} bytes (max_bytes)."
            raise DataError(f"{limit} {self._hint}".strip())
