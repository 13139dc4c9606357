"""Files and folders that are either whole or not there.

What is written is first written beside its place, under a name that begins with `.staging-`, is flushed to the disk,
and is then renamed. Whatever stops the process, a file or folder is complete where it exists, and nothing that is left
behind stands in the way of another try. Modes are those that the umask gives.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from adaptkit.errors import AdaptkitError, ModelError, RunError

STAGING = ".staging-"
"""How names of what is not complete begin."""

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
_OF_TORCH = ("PytorchStreamWriter", "inline_container", "unexpected pos", "No space left")
_COMMIT = ".complete"


@contextmanager
def atomic_file(path: Path | str, mode: str = "w", *, shared: bool = False, hint: str = "") -> Iterator[IO[Any]]:
    """Open a file to write, which appears at `path`, whole, once the block ends well.

    Args:
        path: Where the file is to be; missing folders are made. A link is followed; a device or pipe is written to
            directly.
        mode: `"w"` for text, which is UTF-8 whatever the locale, or `"wb"`.
        shared: Whether several processes may write the file at the same time.
        hint: What to do where it cannot be written: whole sentences.

    Raises:
        RunError: The file cannot be written; the message names it, and what was there before still is.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _explained(Path(path), hint):
        place = Path(os.path.realpath(path))
        if place.exists() and not place.is_file() and not place.is_dir():
            with place.open(mode, **text) as file:
                yield file
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "there is a folder of this name", str(path))
        staged = place.with_name(f"{STAGING}{place.name}" + (f"-{os.getpid()}" if shared else ""))
        try:
            with staged.open(mode, **text) as file:
                yield file
            sync(staged)
            staged.replace(place)
            sync(place.parent)
        finally:
            staged.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text)


def write_json(path: Path | str, values: Any, *, sort_keys: bool = False) -> None:
    """Write values as JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, sort_keys=sort_keys) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        RunError: That cannot be done.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def staging_path(destination: Path) -> Path:
    """Where a folder is written before it is complete."""
    return destination.with_name(STAGING + destination.name) / destination.name


@contextmanager
def staged_folder(destination: Path | str, *, hint: str = "") -> Iterator[Path]:
    """Give a folder to write in, which becomes `destination` once the block ends well.

    Args:
        destination: Where the folder is to be; one that is there is replaced.
        hint: What to do, or what is left, where it could not be written: whole sentences.

    Raises:
        RunError: Something could not be written; what was at `destination` before is still there.
    """
    destination = Path(os.path.realpath(destination))
    folder = staging_path(destination)
    with _staged(destination, folder.parent, folder, hint):
        yield folder
        sync_folder(folder)
        replace_folder(folder, destination)


@contextmanager
def staged_together(output: Path | str, names: Sequence[str], *, replace: bool = False) -> Iterator[Path]:
    """Give a folder to write files and folders in, which move to `output` together once the block ends well.

    Args:
        output: Their parent; it may hold other things.
        names: What is written, in the order in which it is to appear; what was not written is not missed.
        replace: Whether what is there already is replaced; else it is an error.

    Raises:
        ModelError: Something of a name is there already.
        RunError: Something could not be written; nothing is left behind.
    """
    output = Path(os.path.realpath(output))
    staging = output / f"{STAGING}together"
    made = not output.exists()
    with _explained(output):
        _undo(staging)
    taken = [str(output / name) for name in names if (output / name).exists()]
    if taken and not replace:
        raise ModelError(f"{taken[0]} exists already. Remove it, or name another folder.")
    with _staged(output, staging, staging):
        try:
            yield staging
            (staging / _COMMIT).write_text("\n".join(names), encoding="utf-8")
            sync_folder(staging)
            for name in reversed(names):
                _remove(output / name)
            for name in filter(lambda name: (staging / name).exists(), names):
                (staging / name).rename(output / name)
            sync(output)
        except BaseException:
            _undo(staging)
            if made:
                shutil.rmtree(output, ignore_errors=True)
            raise


@contextmanager
def staged_files(directory: Path | str) -> Iterator[Path]:
    """Give a folder to write in, whose files take their places in `directory`, each whole, once the block ends well.

    Other files of `directory` stay; a link is replaced, and what it leads to is left alone.

    Raises:
        RunError: Something could not be written.
    """
    directory = Path(directory)
    make_folder(directory)
    staging = directory / f"{STAGING}files-{os.getpid()}"
    folder = staging / "files"
    with _staged(directory, staging, folder):
        yield folder
        sync_folder(folder)
        for file in filter(Path.is_file, sorted(folder.rglob("*"))):
            place = directory / file.relative_to(folder)
            _make_below(place.parent, directory)
            file.replace(place)
        sync(directory)


@contextmanager
def _staged(place: Path, staging: Path, folder: Path, hint: str = "") -> Iterator[None]:
    """Make an empty `folder` in `staging`, which is deleted in the end, and name `place` in errors."""
    with _explained(place, hint, folder):
        shutil.rmtree(staging, ignore_errors=True)  # of a killed process
        try:
            folder.mkdir(parents=True)
            yield
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make_below(folder: Path, root: Path) -> None:
    """Make a folder below another; what a link on the way leads to is left alone, and the link is replaced."""
    if folder == root:
        return
    _make_below(folder.parent, root)
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(exist_ok=True)


def _undo(staging: Path) -> None:
    """Delete what a stopped attempt left, even if it stopped between its renames."""
    if (staging / _COMMIT).is_file():
        for name in reversed((staging / _COMMIT).read_text(encoding="utf-8").splitlines()):
            _remove(staging.parent / name)
    shutil.rmtree(staging, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_folder(source: Path, destination: Path) -> None:
    """Rename `source` to `destination`; a folder already there is removed."""
    if destination.exists():
        remove_folder(destination)
    source.rename(destination)
    sync(destination.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a half-deleted one is never taken for a whole one."""
    doomed = folder.with_name(f"{STAGING}old-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(parent: Path) -> None:
    """Delete what a killed process left half-written or half-deleted."""
    for path in parent.glob(f"{STAGING}*"):
        _remove(path)


def sync_folder(folder: Path) -> None:
    """Flush a folder and all that is in it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- what can go wrong -----------------------------------------------------------------------------------------------


@contextmanager
def _explained(path: Path, hint: str = "", staging: Path | None = None) -> Iterator[None]:
    try:
        yield
    except AdaptkitError as error:
        if staging is not None:  # nobody finds it there
            shown = [arg.replace(str(staging), str(path)) if isinstance(arg, str) else arg for arg in error.args]
            error.args = tuple(shown)
        raise
    except Exception as error:
        if not is_write_error(error) or _is_elsewhere(error, path):
            raise
        raise RunError(explain_write_error(error, path, hint)) from error


def _is_elsewhere(error: Exception, path: Path) -> bool:
    """Whether it was another file that could not be used, such as one that was read meanwhile."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | os.PathLike) or getattr(error, "errno", None) in _FULL:
        return False
    place = Path(os.path.realpath(path))
    return place.parent not in Path(os.path.realpath(named)).parents and Path(named) not in (place, *place.parents)


def is_write_error(error: BaseException) -> bool:
    """Whether a file could not be written; torch, safetensors and tokenizers do not raise `OSError`."""
    text = str(error)
    if isinstance(error, OSError) or type(error).__name__ == "SafetensorError" or "os error" in text:
        return True
    return type(error) is RuntimeError and any(words in text for words in _OF_TORCH)


def explain_write_error(error: BaseException, path: Path, hint: str = "") -> str:
    """Say that a file could not be written, why, and what to do."""
    folder = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path())
    free = shutil.disk_usage(folder).free
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left" in str(error) or (free < 1 << 20 and number is None):
        reason, advice = f"the disk is full ({free / 2**20:.0f} MiB free)", " Free some space, and try again."
    elif number is not None:
        named = getattr(error, "filename", None)
        reason = f"{getattr(error, 'strerror', None) or error}" + (f" ({named})" if named else "")
        advice = ""
    else:
        reason, advice = f"{type(error).__name__}: {error}", ""
    return f"could not write {path}: {reason}.{advice} {hint}".rstrip()
