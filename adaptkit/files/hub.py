"""Models and datasets of the Hugging Face hub: whether they could be had, and what this machine's cache holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

TIMEOUT_S = 5.0

_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_cached(model_id: str, revision: str | None = None) -> bool:
    """Whether config and safetensors of a model are in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    # transformers fetches converted weights from another revision of the same repository
    return isinstance(config, str) and any(Path(config).parent.parent.glob("*/*.safetensors"))


def is_file_cached(model_id: str, filename: str) -> bool:
    """Whether a file of a repository is in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    return is_hub_id(model_id) and isinstance(try_to_load_from_cache(model_id, filename), str)


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
        return f"the hub has no such {kind}"
    except RevisionNotFoundError:
        return f"the hub has no revision {revision!r} of this {kind}"
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


def is_hub_id(name: str) -> bool:
    """Whether a name that is not a folder can be a model id."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None


def cached_commit(model_id: str, revision: str | None = None, cache_dir: str | Path | None = None) -> str | None:
    """The commit that a branch, tag or commit of a model stands for in a cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    if revision is not None and _COMMIT.fullmatch(revision):
        return str(revision)
    try:
        config = try_to_load_from_cache(model_id, "config.json", revision=revision, cache_dir=cache_dir)
    except ValueError:  # not an id
        return None
    return Path(config).parent.name if isinstance(config, str) else None


def cached_snapshots(model_id: str) -> list[Path]:
    """Folders of this machine's cache with weights of a model, that of its main branch first."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model_id, repo_type="model") / "snapshots"
    main = cached_commit(model_id)
    found = [path for path in sorted(folder.glob("*")) if any(path.glob("*.safetensors"))]
    return sorted(found, key=lambda path: path.name != main)


def snapshot_origin(folder: Path) -> tuple[str, str] | None:
    """Model id and commit of a folder in this machine's cache; None for any other folder."""
    from huggingface_hub import constants

    parts = Path(constants.HF_HUB_CACHE).resolve(), folder.resolve()
    if not parts[1].is_relative_to(parts[0]):
        return None
    repository, *rest = parts[1].relative_to(parts[0]).parts or ("",)
    if len(rest) != 2 or rest[0] != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), rest[1]
