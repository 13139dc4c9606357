"""Arrays with an entry for each sample of a source, such as its length: made once, and mapped by all processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from adaptkit.errors import RunError
from adaptkit.files.writing import atomic_file

logger = logging.getLogger(__name__)

Numbers = NDArray[np.int32]
Keep = Callable[[Any, str, Callable[[], Numbers]], Numbers]
"""Gives the array of a source and a name that was made before, or makes it."""

_VERSION = 1


def made_anew(source: Any, name: str, make: Callable[[], Numbers]) -> Numbers:
    """A `Keep` that keeps nothing."""
    return make()


def kept_in(folder: Path, encoding: str | None) -> Keep:
    """A `Keep` of files in a folder. Processes that want the same array wait for the one that makes it.

    Args:
        folder: Where the files are.
        encoding: All that entries depend on besides the source; None where that is not known, so that nothing is kept.
    """

    def keep(source: Any, name: str, make: Callable[[], Numbers]) -> Numbers:
        identity = getattr(source, "identity", None)
        if encoding is None or identity is None:
            return make()
        key = sha256(repr((_VERSION, name, identity, encoding)).encode(errors="surrogatepass")).hexdigest()[:32]
        path = folder / f"{key}.npy"
        found = _load(path, len(source))
        return _made(path, len(source), make) if found is None else found

    return keep


def _made(path: Path, length: int, make: Callable[[], Numbers]) -> Numbers:
    made: Numbers | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = _load(path, length)
            if found is not None:
                return found
            made = make()
            with atomic_file(path, "wb") as file:
                np.save(file, made)
    except (OSError, RunError) as error:  # they can be made again
        logger.warning("lengths of samples are not kept: %s", error)
    return make() if made is None else made


def _load(path: Path, length: int) -> Numbers | None:
    try:
        found: Numbers = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if len(found) == length else None
