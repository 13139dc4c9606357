"""Files and folders are whole or not there, whatever stops the writer, and have the umask's mode."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptkit.errors import ModelError, RunError
from adaptkit.files import writing


class Killed(BaseException):
    """As if the process had ended here: nothing is cleaned up after it."""


def write_file(root: Path, text: str) -> None:
    writing.write_text(root / "report.html", text)


def write_folder(root: Path, text: str) -> None:
    with writing.staged_folder(root / "exported") as folder:
        (folder / "config.json").write_text(text)
        (folder / "deeper").mkdir()
        (folder / "deeper" / "weights").write_text(text)


def write_together(root: Path, text: str) -> None:
    with writing.staged_together(root / "imported", ["base", "vision"]) as folder:
        for name in ("base", "vision"):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(text)


def write_files(root: Path, text: str) -> None:
    with writing.staged_files(root) as folder:
        (folder / "config.json").write_text(text)
        (folder / "encoders").mkdir()
        (folder / "encoders" / "config.json").write_text(text)


WRITERS = {"files": write_files, "file": write_file, "folder": write_folder, "together": write_together}
WHOLE = {
    "files": {"config.json", "encoders/config.json"},
    "file": {"report.html"},
    "folder": {"exported/config.json", "exported/deeper/weights"},
    "together": {"imported/base/config.json", "imported/vision/config.json"},
}


def found(root: Path) -> dict[str, str]:
    """Files by their place, without what is not complete and says so."""
    files = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}
    return {name: text for name, text in files.items() if writing.STAGING not in name}


def dying(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the process at the n-th call that changes names or flushes, without any cleaning up."""
    calls = [0]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] >= step:
                raise Killed
            return real(*arguments, **options)

        return call

    names = ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (os, "fsync"), (writing.shutil, "rmtree"))
    for owner, name in names:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("step", range(1, 12))
def test_a_killed_writer_leaves_all_or_nothing_and_nothing_in_the_way(
    name: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        dying(patched, step)
        with contextlib.suppress(Killed):
            WRITERS[name](tmp_path, "first")
        left = found(tmp_path)
    if name in ("file", "folder"):
        assert left.keys() in (set(), WHOLE[name])
    if left.keys() == WHOLE[name] and name == "together":
        return  # complete: a retry is refused, and rightly
    WRITERS[name](tmp_path, "second")
    assert found(tmp_path) == dict.fromkeys(WHOLE[name], "second")


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("name", "place"), [("file", "report.html"), ("folder", "exported"), ("together", "imported"), ("files", "")]
)
def test_a_full_disk_names_the_file_and_leaves_what_was_there(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "together":
        WRITERS[name](tmp_path, "before")
    before = found(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="the disk is full") as caught:
            WRITERS[name](tmp_path, "after")
    assert str(tmp_path / place) in str(caught.value)
    assert found(tmp_path) == before
    assert not [path for path in tmp_path.rglob("*") if writing.STAGING in path.name]


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
@pytest.mark.parametrize("name", WRITERS)
def test_modes_are_the_umasks(name: str, tmp_path: Path, umask: int) -> None:
    root = tmp_path / "new"
    WRITERS[name](root, "text")
    for path in (root, *root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_names_that_are_taken_are_named(tmp_path: Path) -> None:
    (tmp_path / "imported" / "vision").mkdir(parents=True)
    with pytest.raises(ModelError, match=f"{tmp_path / 'imported' / 'vision'} exists"):
        write_together(tmp_path, "text")
    assert not (tmp_path / "imported" / "base").exists()


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not write") as caught:
        writing.write_text(tmp_path / "file" / "results.json", "text")
    assert str(tmp_path / "file") in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder"):
        writing.write_text(tmp_path / "folder", "text")


def test_links_are_followed_and_devices_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    writing.write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"
    writing.write_text(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()


def test_other_files_errors_are_not_the_writers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing.atomic_file(tmp_path / "out" / "data.json"):
        (tmp_path / "in" / "missing").read_text()
