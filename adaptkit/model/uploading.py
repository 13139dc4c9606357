"""Uploading what `save_pretrained` writes to the Hugging Face hub."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from transformers.utils.hub import create_and_tag_model_card

from adaptkit.errors import ArgumentError, unknown_name


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
    """Upload the files that `save` writes to a folder, as transformers' `push_to_hub` does with the same keywords.

    Transformers' own method looks one level deep into folders. Repository and branch are created where they do not
    exist. `message` is that of the commit where none is given.

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
