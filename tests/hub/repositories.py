"""Repositories of a hub that lives in memory: branches, commits, files, and who may read them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LFS_SIZE = 10_000
"""From which size files are LFS's here; the hub's own limit is larger, and binary files are LFS's at any size."""


class RefusalError(Exception):
    """An answer that is an error, as the hub words it in its headers."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message or code)
        self.status = status
        self.code = code
        self.message = message or code


def git_oid(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_large(path: str, size: int) -> bool:
    """Whether a file is kept by LFS."""
    return path.endswith(".safetensors") or size >= LFS_SIZE


@dataclass
class Commit:
    """One state of a repository: its files, and what was said with it."""

    sha: str
    files: dict[str, bytes]
    summary: str = ""
    description: str = ""


@dataclass
class Repository:
    """A model's repository.

    Attributes:
        refs: Commit of each branch, tag and pull request; branches and tags by their bare names.
    """

    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refs["main"] = self.add(Commit("", {".gitattributes": b""}, "initial commit"))

    def add(self, commit: Commit) -> str:
        """Keep a commit, under a name of its own."""
        commit.sha = hashlib.sha1(f"{len(self.commits)} {id(self)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[commit.sha] = commit
        return commit.sha

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or commit stands for."""
        found = self.commits.get(self.refs.get(revision, revision))
        if found is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    @property
    def pull_requests(self) -> list[str]:
        return [name for name in self.refs if name.startswith("refs/pr/")]

    def commit(self, revision: str, lines: Iterable[Mapping[str, Any]], large: Mapping[str, bytes], pull: bool) -> str:
        """Take what a client sends to `/commit`; returns the ref that it went to."""
        files = dict(self.at(revision).files)
        made = Commit("", files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                made.summary, made.description = value["summary"], value.get("description", "")
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = large[value["oid"]]
            elif line["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise RefusalError(404, "EntryNotFound", "A file with this name doesn't exist")
            else:
                raise RefusalError(400, message=f"unknown operation {line['key']}")
        ref = f"refs/pr/{len(self.pull_requests) + 1}" if pull else revision
        self.refs[ref] = self.add(made)
        return ref
