"""Where a checkpoint lies, and what to say when it does not. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.files.checkpoints import fetch, find_weights
from adaptkit.files.hub import hub_refusal, is_file_cached, is_hub_id
from adaptkit.files.loading import read_json
from adaptkit_open_clip.options import OpenClipOptions

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
_HUB = "hf-hub:"
_PREFERRED = (WEIGHTS_NAME, "open_clip_pytorch_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
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
    return refusal and f"{model_id} is not in the cache of the Hugging Face hub, and {refusal}. {_PROVIDE}"


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
        found = Checkpoint(find_weights(place, _PREFERRED, _PROVIDE), _read_config(place / CONFIG_NAME))
    else:
        raise ModelError(f"no file or folder at {path}. {_PROVIDE}")
    if found.config is None and model is None:
        raise ModelError(f"{path} comes without {CONFIG_NAME}: say which architecture it has with `model: NAME`.")
    return found


def _read_config(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    config = read_json(file)
    if not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{file} has no model_cfg: it is not a configuration of open_clip.")
    return config


def _from_hub(model_id: str) -> Checkpoint:
    config = fetch(model_id, CONFIG_NAME, _PROVIDE)
    names = (WEIGHTS_NAME, "open_clip_pytorch_model.bin")
    weights = next(filter(None, (fetch(model_id, name, _PROVIDE) for name in names)), None)
    if config is None or weights is None:
        lacking = CONFIG_NAME if config is None else " or ".join(names)
        raise ModelError(f"{model_id} has no {lacking} on the Hugging Face hub. {_PROVIDE}")
    return Checkpoint(weights, _read_config(config))


def _cached(model_id: str) -> bool:
    if not is_hub_id(model_id):
        raise ModelError(f"hf-hub:{model_id} is not a model id. {_PROVIDE}")
    return is_file_cached(model_id, CONFIG_NAME) and any(is_file_cached(model_id, name) for name in _PREFERRED)
