"""Failures of the machine, not of a recipe or adaptkit: too little memory, a killed process, too many files."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from adaptkit.errors import RunError
from adaptkit.files.loading import is_out_of_memory

_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is killed by signal: (\w+)|exited unexpectedly)")
_WANTED = re.compile(r"(?:Tried to allocate|you tried to allocate) ([\d.,]+ ?\w+)", re.IGNORECASE)

LOWER = (
    "Give a lower per_device_train_batch_size (beside train_batch_size, or raising gradient_accumulation_steps as "
    "much, the result is the same), a lower "
    "max_length, or set gradient_checkpointing: true; `adaptkit train RECIPE --dry-run` predicts what a run needs."
)
"""Advice if training has too little memory."""


def explain_failure(error: BaseException, advice: str = "") -> str | None:
    """Describe a failure of the machine, and what to do; None for any other error."""
    text = str(error)
    killed = _WORKER.search(text)
    if killed or "DataLoader worker" in text:
        signal = f" ({killed[1]})" if killed and killed[1] else ""
        return (
            f"a data loader process was killed{signal}, most often because there was too little memory, or too little "
            "shared memory (/dev/shm). Lower dataloader_num_workers, or use a machine with more memory. Continue with "
            "--resume auto."
        )
    if is_out_of_memory(error):
        where = "the GPU" if type(error).__name__ == "OutOfMemoryError" or "CUDA" in text or "HIP" in text else (
            "this machine")  # fmt: skip
        wanted = _WANTED.search(text)
        tried = f" ({wanted[1]} were requested)" if wanted else ""
        return f"{where} has too little memory{tried}. {advice or 'Use a smaller model, batch or input.'}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "too many files are open. Raise the limit (`ulimit -n 65536`), or lower dataloader_num_workers or the "
            "number of processes."
        )
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "there is no home directory for caches: set HOME, or ADAPTKIT_CACHE and HF_HOME, to folders."
    return None


@contextmanager
def machine_failures(what: str, advice: str = "") -> Iterator[None]:
    """Turn failures of the machine into a `RunError` that says what failed and what helps.

    Args:
        what: What runs inside: `"stage 'align'"`.

    Raises:
        RunError: The machine failed.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        message = explain_failure(error, advice)
        if message is None:
            raise
        raise RunError(f"{what}: {message}") from error
