"""Uploading what `save_pretrained` writes to the Hugging Face hub."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils import CONFIG_NAME

from adaptkit.errors import ArgumentError, ModelError, first_line, unknown_name
from adaptkit.files.hub import is_hub_id, refusal_of
from adaptkit.files.loading import is_plain_name
from adaptkit.model.card.facts import CARD_FILE, README_FILE
from adaptkit.model.config import MODEL_TYPE
from adaptkit.model.overwriting import model_type_in

_WEIGHTS = (".safetensors", ".safetensors.index.json")


def check_upload_options(
    given: Mapping[str, Any], method: str, others: Collection[str] = (), *, push_to_hub: bool = True
) -> None:
    """Make sure that arguments of a method are those of an upload; `others` are what else it takes.

    Raises:
        ArgumentError: One is unknown, or has nothing to apply to.
    """
    known = {*inspect.signature(upload).parameters} - {"save", "message"}
    for name in given:
        if name not in known:
            raise ArgumentError(f"{method}: {unknown_name('argument', name, known | {*others})}")
        if not push_to_hub:
            raise ArgumentError(f"{method}: {name}= needs push_to_hub=True.")


def upload(
    save: Callable[[Path, str], Any],
    repo_id: str,
    message: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    tags: list[str] | None = None,
    subfolder: str = "",
) -> Any:
    """Upload the files that `save` writes, as transformers' `push_to_hub` does with the same keywords.

    Transformers' own method looks one level deep into folders, and leaves weights of an earlier upload beside the new
    ones. Repository and branch are created where they do not exist.

    Args:
        save: Gets a folder, in which the model card lies that is on the hub already, and the repository's whole id.
        message: Of the commit where none is given.
        subfolder: Where in the repository the files go, which then holds several workflows; `final/NAME` makes it a
            run directory.

    Returns:
        What the hub says of the commit.

    Raises:
        ArgumentError: The repository's or folder's name is not valid.
        ModelError: The hub cannot be reached or refuses it, or the repository holds another model.
    """
    parts = PurePosixPath(subfolder).parts
    if not all(map(is_plain_name, parts)):
        raise ArgumentError(f"subfolder={subfolder!r}: give a folder in the repository, such as 'final/vision'.")
    if not isinstance(repo_id, str) or not is_hub_id(repo_id):
        raise ArgumentError(f"repo_id={repo_id!r}: give NAME or OWNER/NAME, of letters, digits, '-', '_' and '.'.")
    api = HfApi(library_name="adaptkit", token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        place = folder.joinpath(*parts)
        place.mkdir(parents=True)
        with _asking_hub(repo_id):
            repo_id = repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"
            there = _download_card(api, repo_id, revision, folder, parts)
        if (found := model_type_in(place / CONFIG_NAME)) not in (None, MODEL_TYPE):
            raise ModelError(
                f"{repo_id} holds a model that is not a workflow ({found}), which would be overwritten. Name another "
                "repository."
            )
        save(place, repo_id)  # what cannot be saved is said before anything is created
        _write_card(folder / README_FILE, repo_id, tags)
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        outdated = [CommitOperationDelete(name) for name in _outdated(there, files)]
        with _asking_hub(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None and not revision.startswith("refs/pr"):
                api.create_branch(repo_id=repo_id, branch=revision, exist_ok=True)
            return api.create_commit(
                repo_id,
                [*added, *outdated],
                commit_message=commit_message or message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )


def _download_card(api: HfApi, repo_id: str, revision: str | None, folder: Path, parts: tuple[str, ...]) -> list[str]:
    """Put the model card that is on the hub in a folder, so that what a person wrote there can be kept.

    Returns:
        Names of all files that are there, or that a new branch begins with; none where there is no repository yet.
    """
    try:
        there = api.list_repo_files(repo_id, revision=revision)
    except RevisionNotFoundError:
        return _download_card(api, repo_id, None, folder, parts) if revision is not None else []
    except RepositoryNotFoundError:
        return []
    ours = {PurePosixPath(*parts, name).as_posix() for name in (README_FILE, CARD_FILE, CONFIG_NAME)}
    for name in ({README_FILE} | ours) & set(there):
        api.hf_hub_download(repo_id, name, revision=revision, local_dir=folder)
    return there


@contextmanager
def _asking_hub(repo_id: str) -> Iterator[None]:
    """Turn refusals of the hub into errors that say what to do."""
    try:
        yield
    except Exception as error:  # a dozen transport and validation errors of two HTTP libraries
        reason = refusal_of(error)
        if reason is None and not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        raise ModelError(
            f"{repo_id} cannot be uploaded to the Hugging Face hub; {reason or first_line(error)}."
        ) from error


def _files(folder: Path) -> list[Path]:
    """What is to be uploaded, without the client's own notes on downloads."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if path.relative_to(folder).parts[0] != ".cache"]


def _write_card(path: Path, repo_id: str, tags: Collection[str] | None) -> None:
    """Write a model card where there is none yet, and add tags to it."""
    if not path.exists():
        metadata = ModelCardData(library_name="adaptkit", tags=[])
        name = repo_id.rpartition("/")[2]
        text = f'# {name}\n\nMade with adaptkit. `adaptkit.load("{repo_id}")` loads it.\n'
        path.write_text(f"---\n{metadata.to_yaml()}\n---\n\n{text}", encoding="utf-8")
    elif not tags:
        return
    card = ModelCard.load(path)
    card.data.tags = [*dict.fromkeys([*(card.data.tags or []), *(tags or [])])] or None
    card.save(path)


def _outdated(there: Iterable[str], files: Collection[str]) -> list[str]:
    """Weights of an earlier upload that would be read beside, or instead of, those of this one."""
    replaced = {PurePosixPath(name).parent for name in files if name.endswith(_WEIGHTS)}
    return [
        name
        for name in there
        if name.endswith(_WEIGHTS) and name not in files and PurePosixPath(name).parent in replaced
    ]
