"""Where a checkpoint lies, and what to say when it does not. Imports neither torch nor transformers."""

from __future__ import annotations

import re
from pathlib import Path

from adaptkit.errors import ModelError, unknown_name

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT_S = 5.0
_WORLD = "world:"


def resolve(path: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    if path.startswith(_WORLD):
        from adaptkit.world import model_path

        name = path.removeprefix(_WORLD)
        if name != "encoder":
            raise ModelError(unknown_name("built-in encoder", name, ["encoder"]))
        return model_path("encoder")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{path} is a file. {provide('Name the folder that holds it:')}")
    if path.startswith((".", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"no folder at {path}. {provide()}")
    return path


def provide(lead: str = "") -> str:
    """How to make a checkpoint available."""
    return (
        f"{lead} Set the encoder's `path` to a folder with config.json and model.safetensors of a CLIP, "
        "SigLIP or DINOv2 model, or to a model id of the Hugging Face hub; `hf download ID --local-dir FOLDER`, run "
        "where there is a network, makes such a folder. To try the recipe without it, use `--rehearse`."
    ).strip()


def missing(path: str, revision: str | None) -> str | None:
    """What a build would not find: None where the checkpoint is here, or the hub answers for it."""
    try:
        place = resolve(path)
    except ModelError as error:
        return str(error)
    if isinstance(place, Path):
        return _missing_files(place, path)
    if _is_cached(place, revision):
        return None
    reason = _hub_refusal(place, revision)
    if reason is None:
        return None
    return f"no folder {path!r} here, it is not in the cache of the Hugging Face hub, and {reason}. {provide()}"


def _missing_files(folder: Path, path: str) -> str | None:
    if not (folder / "config.json").is_file():
        return f"{path} holds no config.json. {provide()}"
    if any(folder.glob("*.safetensors")):
        return None
    pickled = any(folder.glob("*.bin"))
    detail = " (only pickled *.bin, which adaptkit does not load: convert them to safetensors)" if pickled else ""
    return f"{path} holds no *.safetensors{detail}. {provide()}"


def _is_cached(model_id: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    if not isinstance(config, str):
        return False
    # transformers fetches converted weights from another revision of the same repository
    return any(Path(config).parent.parent.glob("*/*.safetensors"))


def _hub_refusal(model_id: str, revision: str | None) -> str | None:
    """Why the hub would not give a model; None where it would."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids downloading it"
    try:
        HfApi().model_info(model_id, revision=revision, timeout=_HUB_TIMEOUT_S)
    except GatedRepoError:
        return "the hub wants its licence accepted and a login (`hf auth login`)"
    except RepositoryNotFoundError:
        return "the hub knows no such model"
    except RevisionNotFoundError:
        return f"the hub knows no revision {revision!r} of it"
    except Exception as error:  # a dozen transport errors of two HTTP libraries: all mean no answer
        return f"the hub cannot be reached ({type(error).__name__})"
    return None
