"""Pretrained checkpoints of encoders: where they lie, what they lack, and loading them strictly.

For plugins. Importing it loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError, first_line
from adaptkit.files.hub import hub_refusal, is_cached, is_hub_id, missing_files
from adaptkit.files.loading import load_stock

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_PICKLED = ("*.bin", "*.pt", "*.pth")


def advice_for(what: str) -> str:
    """How to provide a checkpoint in the layout of transformers; `what` ends "model.safetensors of"."""
    return (
        f"Set the encoder's `path` to a folder with config.json and model.safetensors of {what}, or to a model id of "
        "the Hugging Face hub; `hf download ID --local-dir FOLDER`, run where there is a network, makes such a folder. "
        "To try the recipe without it, use `--rehearse`."
    )


def find_checkpoint(path: str, advice: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{path} is a file. Name the folder that holds it. {advice}")
    if path.startswith((".", "~")) or not is_hub_id(path):
        raise ModelError(f"no folder at {path}. {advice}")
    return path


def missing_checkpoint(place: Path | str, path: str, revision: str | None, advice: str) -> str | None:
    """What loading a checkpoint would not find: None where it is here, or the hub answers for it.

    Args:
        place: As `find_checkpoint` found it.
    """
    if isinstance(place, Path):
        lacking = missing_files(place, path)
        return lacking and f"{lacking} {advice}"
    if is_cached(place, revision) or (refusal := hub_refusal(place, revision)) is None:
        return None
    return f"no folder {path!r} here, it is not in the cache of the Hugging Face hub, and {refusal}. {advice}"


def has_processor(place: Path | str, revision: str | None, advice: str) -> bool:
    """Whether a checkpoint says how its inputs are made.

    Raises:
        ModelError: It is on the hub, which cannot be reached.
    """
    if isinstance(place, Path):
        return any((place / name).is_file() for name in PROCESSOR_FILES)
    return fetch(place, PROCESSOR_FILES[0], advice, revision) is not None


def fetch(model_id: str, filename: str, advice: str, revision: str | None = None) -> Path | None:
    """A file of a repository on the hub, downloaded where the cache lacks it; None where there is no such file.

    Raises:
        ModelError: That cannot be determined: absent and unreachable are not the same.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model_id, filename, revision=revision))
    except Exception as error:  # a dozen transport and validation errors
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise ModelError(
            f"cannot get {filename} of {model_id} from the Hugging Face hub: {first_line(error)}. {advice}"
        ) from error


def find_weights(folder: Path, preferred: Sequence[str], advice: str) -> Path:
    """The file of tensors in a folder: a preferred one, else safetensors, else a pickled one."""
    for pattern in (*preferred, "*.safetensors", *_PICKLED):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    raise ModelError(f"{folder} holds no weights (*.safetensors, {', '.join(_PICKLED)}). {advice}")


def load_encoder_model(
    model_class: Any, place: Path | str, path: str, what: str, *, advice: str, **options: Any
) -> Any:
    """Load the encoder of a checkpoint of transformers, whole or the encoder alone, from safetensors.

    Args:
        model_class: Of the encoder.
        place: Folder or model id.
        path: What to call it in messages.
        what: What to call the encoder in messages.
        advice: As in `load_stock`.
        options: Further ones of `load_stock`.

    Raises:
        ModelError: It cannot be loaded, or lacks tensors of the encoder.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # without the table of unused tensors; absent ones are checked for here
    try:
        model, report = load_stock(
            model_class, place, advice=advice, use_safetensors=True, output_loading_info=True, **options
        )
    finally:
        logging.set_verbosity(verbosity)
    require_all(sorted(report["missing_keys"]), path, what)
    return model


def load_part(module: Any, state: dict[str, Any], file: Path, what: str) -> None:
    """Load a module's tensors from those of a larger checkpoint.

    Raises:
        ModelError: They are of another architecture, or some are absent.
    """
    try:
        absent = module.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        reason = str(error).splitlines()[:2][-1].strip()
        raise ModelError(f"{file} is of another architecture: {reason}") from error
    require_all(absent, file, what)


def require_all(absent: Iterable[str], place: object, what: str) -> None:
    """Raise a `ModelError` where tensors are absent."""
    if names := list(absent):
        raise ModelError(f"{place} lacks {len(names)} of the {what}'s tensors, {names[0]} among them.")
