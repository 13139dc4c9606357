"""Untrusted pickles of plain values: anything that would run code is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from adaptkit.errors import DataError
from adaptkit.files.loading import reading

MAX_BYTES = 1 << 30
_ENCODINGS = ("utf-8", "latin-1")
"""Of Python 2's strings, the likelier first."""


class _PlainUnpickler(pickle._Unpickler):
    """Reads what pickle has opcodes of its own for: lists, dicts, tuples, sets, text, bytes, numbers.

    In Python, because the faster one allots memory for any index that a file names.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(
            f"it asks for {f'{module}.{name}'[:80]!r}, and such a file could run any code. Only plain values are read"
        )


def load_plain_pickle(path: Path) -> Any:
    """The value of a pickle of plain values, written by Python 2 or 3.

    Raises:
        DataError: The file cannot be read, is damaged, or holds more than plain values.
    """
    with reading(path, DataError):
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES:,} bytes, too large for such a file")
        raw = path.read_bytes()
    for encoding in _ENCODINGS:
        try:
            return _PlainUnpickler(io.BytesIO(raw), encoding=encoding).load()
        except UnicodeDecodeError:
            continue
        except Exception as error:  # a damaged pickle can fail in any way
            raise DataError(f"{path} cannot be read as a pickle: {error or 'it is damaged'}.") from error
    raise AssertionError("latin-1 decodes any bytes")
