"""Uploading what `save_pretrained` writes to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from transformers.utils.hub import create_and_tag_model_card

from adaptkit.errors import ArgumentError, unknown_name

UPLOAD_OPTIONS = ("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")
"""Keywords of `upload`, by the names of transformers' `push_to_hub`."""


def check_upload_options(
    given: Mapping[str, Any], method: str, others: Collection[str] = (), *, push_to_hub: bool = True
) -> None:
    """Make sure that arguments are those of an upload.

    Args:
        given: By name.
        method: What was called.
        others: What else it takes, to suggest it.
        push_to_hub: Whether there is an upload at all.

    Raises:
        ArgumentError: One is unknown, or has nothing to apply to.
    """
    known = (*UPLOAD_OPTIONS, "repo_id")
    for name in given:
        if name not in known:
            raise ArgumentError(f"{method}: {unknown_name('argument', name, {*known, *others})}")
        if not push_to_hub:
            raise ArgumentError(f"{method}: {name}= needs push_to_hub=True.")


def upload(
    save: Callable[[Path], Any],
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
) -> Any:
    """Upload files to a repository, which is created where it does not exist, with their folders.

    Transformers' own method looks one level deep into folders.

    Args:
        save: Writes the files to a folder.
        repo_id: As for transformers' `push_to_hub`, like what follows.
        message: Of the commit, where none is given.
        commit_message: Of the commit.
        commit_description: Of the commit.
        private: Whether a new repository is private.
        token: Of the user.
        revision: Branch to commit to, which is created where it does not exist.
        create_pr: Whether to open a pull request instead.
        tags: Of the model card.

    Returns:
        What the hub says of the commit.
    """
    api = HfApi(library_name="adaptkit")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        save(folder)
        repo_id = api.create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        card = folder / "README.md"
        if not card.exists():
            create_and_tag_model_card(repo_id, tags, token=token).save(card)
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id=repo_id, branch=revision, token=token, exist_ok=True)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
            commit_message=commit_message or message,
            commit_description=commit_description,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
