"""Whether a model or dataset of the Hugging Face hub could be had, without fetching it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

TIMEOUT_S = 5.0


def is_cached(model_id: str, revision: str | None = None) -> bool:
    """Whether config and safetensors of a model are in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    # transformers fetches converted weights from another revision of the same repository
    return isinstance(config, str) and any(Path(config).parent.parent.glob("*/*.safetensors"))


def hub_refusal(
    model_id: str, revision: str | None = None, *, kind: Literal["model", "dataset"] = "model"
) -> str | None:
    """Why the hub would not give a model or dataset, as the end of a sentence; None where it would."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids downloading it"
    try:
        HfApi().repo_info(model_id, revision=revision, repo_type=kind, timeout=TIMEOUT_S)
    except GatedRepoError:
        return "the hub wants its licence accepted and a login (`hf auth login`)"
    except RepositoryNotFoundError:
        return f"the hub knows no such {kind}"
    except RevisionNotFoundError:
        return f"the hub knows no revision {revision!r} of it"
    except Exception as error:  # a dozen transport errors of two HTTP libraries: all mean no answer
        return f"the hub cannot be reached ({type(error).__name__})"
    return None


def missing_files(folder: Path, path: str) -> str | None:
    """What a folder lacks to be a transformers checkpoint, as a sentence; None where it has all."""
    if not (folder / "config.json").is_file():
        return f"{path} holds no config.json."
    if any(folder.glob("*.safetensors")):
        return None
    pickled = any(folder.glob("*.bin"))
    detail = " (only pickled *.bin, which adaptkit does not load: convert them to safetensors)" if pickled else ""
    return f"{path} holds no *.safetensors{detail}."
