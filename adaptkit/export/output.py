"""The folder that an export writes, and what it reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.files.writing import staged_folder


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and how it compared with the workflow after it was read back.

    Attributes:
        directory: The stock checkpoint.
        logits_difference: Largest difference between the logits of both, on random prompts.
        placeholder_id: Id that stands for the features of a medium in the exported model; None where there are none.
        placeholder: Its text; None where no processor was written.
        added_rows: Rows that embedding and head got for it.
        media_difference: Largest difference between what both processors make of the same media; None where none was
            written.
        dropped_settings: Generation settings of the base that have no effect and that transformers refuses to save.
    """

    directory: Path
    logits_difference: float
    placeholder_id: int | None = None
    placeholder: str | None = None
    added_rows: int = 0
    media_difference: float | None = None
    dropped_settings: tuple[str, ...] = ()


@contextmanager
def written_whole(directory: Path) -> Iterator[Path]:
    """A temporary folder that becomes `directory` where all went well, and is deleted otherwise.

    Raises:
        ModelError: There is something at `directory` already.
    """
    directory = directory.resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError(f"{directory} is not empty. Name another folder, or remove it.")
    with staged_folder(directory) as folder:
        yield folder
