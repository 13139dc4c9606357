"""Where a checkpoint lies, and what to say when it does not. Imports neither torch nor transformers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.files.checkpoints import advice_for, find_checkpoint, missing_checkpoint
from adaptkit_whisper.options import WhisperOptions

ADVICE = advice_for("a Whisper model")
_CACHED_FILES = {"large": "large-v3", "turbo": "large-v3-turbo"}


def missing(options: WhisperOptions) -> str | None:
    """What a build would not find: None where the checkpoint is here, or the hub answers for it."""
    try:
        if options.backend == "openai-whisper":
            find_openai_file(options.path)
            return None
        place = resolve(options.path)
    except ModelError as error:
        return str(error)
    return missing_checkpoint(place, options.path, options.revision, ADVICE)


def resolve(path: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    if Path(path).expanduser().is_file():
        raise ModelError(f"{path} is a file, which only backend: openai-whisper reads (*.pt). {ADVICE}")
    return find_checkpoint(path, ADVICE)


def find_openai_file(path: str) -> Path:
    """The `.pt` file of an openai-whisper model, given itself or by a name that its package downloaded before.

    Raises:
        ModelError: The package or the file is not here; nothing is downloaded.
    """
    if find_spec("whisper") is None:
        raise ModelError("backend: openai-whisper needs the package: pip install 'adaptkit-whisper[openai]'.")
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise ModelError(f"{path} is a folder, which backend: transformers reads; openai-whisper needs a *.pt file.")
    cached = openai_cache() / f"{_CACHED_FILES.get(path, path)}.pt"
    if "/" not in path and cached.is_file():
        return cached
    raise ModelError(
        f"no openai-whisper model at {path}, nor {cached} in its cache. Set the encoder's `path` to a *.pt file, or "
        "download one with that package, by `whisper.load_model('small')` where there is a network, and name it."
    )


def openai_cache() -> Path:
    """Where the openai-whisper package keeps what it downloaded."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
