"""Models and datasets of the Hugging Face hub: whether they could be had, and what this machine's cache holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from adaptkit.errors import ModelError, first_line, nearest_name

TIMEOUT_S = 5.0
HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
"""Arguments that say where on the hub a checkpoint is, and how it is downloaded."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[^@\s]+))?")


def is_cached(model_id: str, revision: str | None = None) -> bool:
    """Whether config and safetensors of a model are in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    # transformers fetches converted weights from another revision of the same repository
    return isinstance(config, str) and any(Path(config).parent.parent.glob("*/*.safetensors"))


def is_file_cached(model_id: str, filename: str, revision: str | None = None) -> bool:
    """Whether a file of a repository is in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    return is_hub_id(model_id) and isinstance(try_to_load_from_cache(model_id, filename, revision=revision), str)


def hub_refusal(
    model_id: str, revision: str | None = None, *, kind: Literal["model", "dataset"] = "model"
) -> str | None:
    """Why the hub would not give a model or dataset, as the end of a sentence; None where it would."""
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(model_id, revision=revision, repo_type=kind, timeout=TIMEOUT_S)
    except Exception as error:  # a dozen transport errors of two HTTP libraries
        return refusal_of(error, kind=kind) or f"the hub cannot be reached ({type(error).__name__})"
    return None


def refusal_of(error: BaseException, *, kind: str = "model", local_files_only: bool = False) -> str | None:
    """What the hub or its library refused and what to do, as the end of a sentence; None where it is something else.

    Args:
        error: What the library raised, or what another one made of that.
        kind: What was asked for.
        local_files_only: Whether the caller forbade downloading.
    """
    from huggingface_hub import constants, errors

    chain = list(_causes(error))

    def is_of(*classes: type[BaseException]) -> bool:
        return any(isinstance(one, classes) for one in chain)

    if is_of(errors.GatedRepoError):
        return "the hub wants its licence accepted, on its page there, and a login (`hf auth login`)"
    if is_of(errors.RevisionNotFoundError):
        return f"the hub has no such revision of this {kind}"
    if is_of(errors.RepositoryNotFoundError):
        return f"the hub has no such {kind}, or it is private: check its name, or log in with `hf auth login`"
    if is_of(errors.RemoteEntryNotFoundError):
        return None  # the library names the file
    for one in chain:
        if isinstance(one, errors.HfHubHTTPError) and one.response is not None:
            return _refusal_of_status(one.response.status_code)
    if is_of(errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE forbids downloading it: unset that, or copy the cache of a machine that has it"
        if local_files_only:
            return "local_files_only=True forbids downloading it, and this machine's cache does not hold all of it"
    transport = next((one for one in chain if type(one).__module__.partition(".")[0] in ("httpx", "httpx2")), None)
    if transport is not None or is_of(errors.LocalEntryNotFoundError, errors.FileMetadataError):
        what = "did not answer as a hub does" if is_of(errors.FileMetadataError) else "cannot be reached"
        detail = "" if transport is None else f", {type(transport).__name__}"
        return f"the hub {what} ({constants.ENDPOINT}{detail}): try again, or set HF_ENDPOINT to a mirror"
    return None


def _refusal_of_status(status: int) -> str:
    known = {
        401: "the hub refuses the token: log in again with `hf auth login`, or correct HF_TOKEN",
        403: "the token lacks the permission: make one that has it, and log in with `hf auth login`",
        429: "the hub takes no more requests for now: try again later, or log in with `hf auth login`",
    }
    return known.get(status, f"the hub answers with status {status}: try again later")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def parse_hub_name(name: str) -> tuple[str, str | None] | None:
    """Id and revision of `OWNER/NAME` or `OWNER/NAME@REVISION`; None where a name can only be a folder's."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found["id"], found["revision"])


def download(model_id: str, options: Mapping[str, Any]) -> Path:
    """The folder of this machine's cache with all files of a model.

    Args:
        options: Of `snapshot_download`.

    Raises:
        ModelError: Not all of them are here, and they cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model_id, **options))
    except Exception as error:  # a dozen transport errors of two HTTP libraries
        local_files_only = options.get("local_files_only") is True
        reason = refusal_of(error, local_files_only=local_files_only) or first_line(error)
        asked = f"revision {options['revision']!r} of {model_id}" if options.get("revision") else model_id
        hint = _known_revisions(model_id, options) if _is_unknown_revision(error) else ""
        raise ModelError(f"{asked} cannot be downloaded from the Hugging Face hub; {reason}.{hint}") from error


def _is_unknown_revision(error: BaseException) -> bool:
    from huggingface_hub.errors import RevisionNotFoundError

    return any(isinstance(one, RevisionNotFoundError) for one in _causes(error))


def _known_revisions(model_id: str, options: Mapping[str, Any]) -> str:
    """Which revisions there are, and which is spelt most like the one that was asked for, where the hub says so."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().list_repo_refs(model_id, token=options.get("token"))
    except Exception:  # this only makes a message better
        return ""
    names = [ref.name for ref in (*found.branches, *found.tags)]
    nearest = nearest_name(options["revision"], names)
    return f" There are {', '.join(sorted(names))}.{f' Did you mean {nearest!r}?' if nearest else ''}"


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
