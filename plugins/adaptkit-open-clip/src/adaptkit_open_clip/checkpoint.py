"""Where a checkpoint lies, and what to say when it does not. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.files.hub import hub_refusal
from adaptkit_open_clip.options import OpenClipOptions

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
_HUB = "hf-hub:"
_PREFERRED = (WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
_PICKLED = ("*.bin", "*.pt", "*.pth")
_PROVIDE = (
    "Set the encoder's `path` to a weights file and its `model` to the architecture; or `path` to a folder with "
    f"{CONFIG_NAME} and {WEIGHTS_NAME}, or to hf-hub:ORG/NAME. `hf download ORG/NAME --local-dir FOLDER`, run where "
    "there is a network, makes such a folder. To try the recipe without it, use `--rehearse`."
)


@dataclass(frozen=True)
class Checkpoint:
    """Files of a checkpoint.

    Attributes:
        weights: File of tensors.
        config: Contents of its open_clip_config.json, where it has one.
    """

    weights: Path
    config: dict[str, Any] | None


def missing(options: OpenClipOptions) -> str | None:
    """What a build would not find: None where the checkpoint is here, or the hub answers for it."""
    try:
        if is_here(options.path):
            locate(options.path, options.model)
            return None
    except ModelError as error:
        return str(error)
    model_id = options.path.removeprefix(_HUB)
    refusal = hub_refusal(model_id)
    return (
        None
        if refusal is None
        else f"{model_id} is not in the cache of the Hugging Face hub, and {refusal}. {_PROVIDE}"
    )


def is_here(path: str) -> bool:
    """Whether nothing has to be downloaded: a local path, or a hub id that is in the cache."""
    return not path.startswith(_HUB) or _cached(path.removeprefix(_HUB))


def locate(path: str, model: str | None) -> Checkpoint:
    """Find the files of a checkpoint; those of a hub id that is not in the cache are downloaded.

    Raises:
        ModelError: They are not there, or the architecture is not known.
    """
    if path.startswith(_HUB):
        return _from_hub(path.removeprefix(_HUB))
    place = Path(path).expanduser()
    if place.is_file():
        found = Checkpoint(place, None)
    elif place.is_dir():
        found = Checkpoint(_weights_in(place), _read_config(place / CONFIG_NAME))
    else:
        raise ModelError(f"no file or folder at {path}. {_PROVIDE}")
    if found.config is None and model is None:
        raise ModelError(f"{path} comes without {CONFIG_NAME}: say which architecture it has with `model: NAME`.")
    return found


def _weights_in(folder: Path) -> Path:
    present = [folder / name for name in _PREFERRED if (folder / name).is_file()]
    present += sorted(folder.glob("*.safetensors")) + [file for kind in _PICKLED for file in sorted(folder.glob(kind))]
    if not present:
        raise ModelError(f"{folder} holds no weights (*.safetensors, {', '.join(_PICKLED)}). {_PROVIDE}")
    return present[0]


def _read_config(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{file} has no model_cfg: it is not a configuration of open_clip.")
    return config


def _from_hub(model_id: str) -> Checkpoint:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        config = Path(hf_hub_download(model_id, CONFIG_NAME))
        for name in (WEIGHTS_NAME, "open_clip_pytorch_model.bin"):
            try:
                return Checkpoint(Path(hf_hub_download(model_id, name)), _read_config(config))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except ModelError:
        raise
    except Exception as error:  # a dozen transport and validation errors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"cannot get {model_id} from the Hugging Face hub: {lines[0].rstrip('.')}. {_PROVIDE}"
        ) from error
    raise ModelError(f"{model_id} has neither {WEIGHTS_NAME} nor open_clip_pytorch_model.bin. {_PROVIDE}")


def _cached(model_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(model_id, name) for name in (CONFIG_NAME, *_PREFERRED)]
    except HFValidationError as error:
        raise ModelError(f"hf-hub:{model_id} is not a model id: {error}. {_PROVIDE}") from error
    return isinstance(found[0], str) and any(isinstance(file, str) for file in found[1:])
