"""Where weights lie, and what to say when they do not. Imports timm only to look up published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.checkpoints import fetch, find_weights
from adaptkit.files.hub import hub_refusal, is_file_cached
from adaptkit_timm.options import TimmOptions

HUB = "hf-hub:"
_WEIGHTS_NAME = "model.safetensors"
_PROVIDE = (
    "Set the encoder's `path` to a weights file and its `model` to the architecture, or `path` to a folder that timm "
    f"wrote (config.json and {_WEIGHTS_NAME}); `hf download ORG/NAME --local-dir FOLDER`, run where there is a "
    "network, makes such a folder. To try the recipe without it, use `--rehearse`."
)


@dataclass(frozen=True)
class Checkpoint:
    """What timm builds, and the file that fills it.

    Attributes:
        name: Name for `timm.create_model`.
        weights: File of tensors.
    """

    name: str
    weights: Path


def missing(options: TimmOptions) -> str | None:
    """What a build would not find: None where the weights are here, or the hub answers for them."""
    try:
        if options.path is not None:
            _locate(options.path, options.model)
            return None
        model_id, filename = _published(options.model or "")
    except ModelError as error:
        return str(error)
    if is_file_cached(model_id, filename) or (refusal := hub_refusal(model_id)) is None:
        return None
    return f"{filename} of {model_id} is not in the cache of the Hugging Face hub, and {refusal}. {_PROVIDE}"


def find(options: TimmOptions) -> Checkpoint:
    """Find the weights; published ones that are not in the cache are downloaded.

    Raises:
        ModelError: They are not there, or the architecture is not known.
    """
    if options.path is not None:
        return _locate(options.path, options.model)
    assert options.model is not None
    model_id, filename = _published(options.model)
    weights = fetch(model_id, filename, _PROVIDE)
    if weights is None:
        raise ModelError(f"{model_id} has no {filename} on the Hugging Face hub. {_PROVIDE}")
    return Checkpoint(options.model, weights)


def source_name(options: TimmOptions) -> str:
    """Name for `timm.create_model`, without a look at published weights.

    Raises:
        ModelError: The path is not there, or the architecture is not known.
    """
    if options.path is not None:
        return _locate(options.path, options.model).name
    assert options.model is not None
    return options.model


def _locate(path: str, model: str | None) -> Checkpoint:
    place = Path(path).expanduser()
    if not place.exists():
        raise ModelError(f"no file or folder at {path}. {_PROVIDE}")
    weights = place if place.is_file() else find_weights(place, [_WEIGHTS_NAME], _PROVIDE)
    if place.is_dir() and (place / "config.json").is_file():
        return Checkpoint(f"local-dir:{place}", weights)
    if model is None:
        raise ModelError(f"{path} comes without timm's config.json: say which architecture it has with `model: NAME`.")
    return Checkpoint(model, weights)


def _published(model: str) -> tuple[str, str]:
    """Repository and file of an architecture's published weights."""
    if model.startswith(HUB):
        return model.removeprefix(HUB), _WEIGHTS_NAME
    import timm

    check_known(model)
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise ModelError(f"{model}: {str(error).strip().rstrip('.')}.") from error
    if config is None or not config.hf_hub_id or config.custom_load:
        raise ModelError(f"timm publishes no safetensors of {model} on the Hugging Face hub. {_PROVIDE}")
    return config.hf_hub_id, config.hf_hub_filename or _WEIGHTS_NAME


def check_known(model: str) -> None:
    """Refuse an architecture that timm does not have.

    Raises:
        ModelError: With the nearest name.
    """
    import timm

    if not model.startswith((HUB, "local-dir:")) and not timm.is_model(model):
        raise ModelError(unknown_name("architecture of timm", model.split(".")[0], timm.list_models()))
