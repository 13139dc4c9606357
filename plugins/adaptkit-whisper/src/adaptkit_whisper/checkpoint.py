"""Where a checkpoint lies, and what to say when it does not. Imports neither torch nor transformers."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.files.hub import hub_refusal, is_cached, missing_files
from adaptkit_whisper.options import WhisperOptions

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
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
    if isinstance(place, Path):
        lacking = missing_files(place, options.path)
        return lacking and f"{lacking} {provide()}"
    if is_cached(place, options.revision):
        return None
    reason = hub_refusal(place, options.revision)
    if reason is None:
        return None
    return f"no folder {options.path!r} here, it is not in the cache of the Hugging Face hub, and {reason}. {provide()}"


def resolve(path: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{path} is a file, which only backend: openai-whisper reads (*.pt). {provide('Else:')}")
    if path.startswith((".", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"no folder at {path}. {provide()}")
    return path


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


def provide(lead: str = "") -> str:
    """How to make a checkpoint available."""
    return (
        f"{lead} Set the encoder's `path` to a folder with config.json and model.safetensors of a Whisper model, or to "
        "a model id of the Hugging Face hub; `hf download ID --local-dir FOLDER`, run where there is a network, makes "
        "such a folder. To try the recipe without it, use `--rehearse`."
    ).strip()


def has_processor_file(place: Path | str, revision: str | None) -> bool:
    """Whether a checkpoint says how its inputs are made.

    Raises:
        ModelError: It is on the hub, which cannot be reached.
    """
    if isinstance(place, Path):
        return any((place / name).is_file() for name in PROCESSOR_FILES)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(place, PROCESSOR_FILES[0], revision=revision)
    except LocalEntryNotFoundError as error:  # unknown is not absent
        raise ModelError(
            f"the {PROCESSOR_FILES[0]} of {place} is not in the cache and the hub cannot be reached. {provide()}"
        ) from error
    except EntryNotFoundError:
        return False
    return True
