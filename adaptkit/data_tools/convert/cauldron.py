"""The Cauldron: parquet rows of pictures and questions, as conversations and files of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data.media_types import NUM_BYTES, beginning_of
from adaptkit.data_tools.convert.turns import TurnSummary
from adaptkit.data_tools.convert.writing import Row, WriteOptions, is_unicode, write_rows
from adaptkit.errors import DataError, unknown_name
from adaptkit.files.folder import check
from adaptkit.files.json_stream import Progress
from adaptkit.files.writing import STAGING, make_folder
from adaptkit.releases.entries import Skipped, require_folder

LAYOUT = "SUBSET/train-00000-of-00001.parquet, as the hub's HuggingFaceM4/the_cauldron has them"
PICTURES = "pictures"
DEFAULT = WriteOptions()
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp"}
_TAG = "<image>"
_ROWS_PER_TICK = 100


def convert_cauldron(
    folder: Path,
    output: Path,
    options: WriteOptions = DEFAULT,
    progress: Progress | None = None,
    *,
    subsets: Sequence[str] = (),
) -> TurnSummary:
    """Write rows of `images` and `texts` as conversations, and their pictures as files beside them.

    Pictures are named by their content, so that one that several rows have is written once. They lie in `pictures`,
    beside the output, to which the written paths are relative; `prefix` and `media` of the options have no use here.

    Args:
        folder: Of the dataset, or of one subset.
        output: The JSON file to write.
        options: Which conversations are written.
        progress: Called with the progress.
        subsets: `ai2d` and the like; all that are there where not given.

    Raises:
        DataError: The folder has another layout, or holds nothing to write.
    """
    files = _files(folder, subsets)
    skipped = Skipped()
    summary = TurnSummary(output, skipped=skipped)
    rows = (
        row
        for subset, paths in files.items()
        for row in _rows(subset, paths, output.parent / PICTURES / subset, skipped, progress)
    )
    write_rows(rows, options, summary)
    return summary


def _files(folder: Path, subsets: Sequence[str]) -> dict[str, list[Path]]:
    require_folder(folder, LAYOUT)
    own = sorted(folder.glob("*.parquet"))
    found = {folder.resolve().name: own} if own else {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if files := sorted(child.glob("*.parquet")):
            found[child.name] = files
    if not found:
        raise DataError(f"{folder}: no parquet file in it or its folders. Name a folder with {LAYOUT}")
    for subset in subsets:
        if subset not in found:
            raise DataError(f"{folder}: {unknown_name('subset', subset, found)}")
    return {name: files for name, files in found.items() if name in subsets or not subsets}


def _rows(
    subset: str, paths: Sequence[Path], pictures: Path, skipped: Skipped, progress: Progress | None
) -> Iterator[Row]:
    from adaptkit.data.formats.parquet import ParquetRows

    rows = ParquetRows(paths)
    make_folder(pictures)
    for index in range(len(rows)):
        try:
            yield _row(rows.raw(index), f"{subset}_{index}", rows.where(index), pictures)
        except DataError as error:
            skipped.note(f"malformed rows of {subset}", error)
        if progress is not None and ((index + 1) % _ROWS_PER_TICK == 0 or index + 1 == len(rows)):
            progress(index + 1, len(rows), f"reading {subset}")


def _row(row: Mapping[str, Any], name: str, where: str, pictures: Path) -> Row:
    check(row, where, images=list, texts=list)
    turns: list[dict[str, str]] = []
    for entry in row["texts"]:
        check(entry, where, user=str, assistant=str)
        question, answer = entry["user"].replace(_TAG, " ").strip(), entry["assistant"].strip()
        if not question or not answer or not is_unicode(question + answer):
            raise DataError(f"{where}: a question or an answer is empty, or not Unicode")
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    if not turns or not row["images"]:
        raise DataError(f"{where}: it has {len(row['images'])} pictures and {len(turns) // 2} questions")
    files = [_write_picture(picture, where, pictures) for picture in row["images"]]
    turns[0]["value"] = f"{_TAG}\n" * len(files) + turns[0]["value"]
    return {"id": name, "image": files[0] if len(files) == 1 else files, "conversations": turns}


def _write_picture(picture: Any, where: str, folder: Path) -> str:
    """Write a picture, unless it is there; gives its path relative to the output."""
    content = picture.get("bytes") if isinstance(picture, Mapping) else picture
    if not isinstance(content, bytes) or not (ending := _ENDINGS.get(beginning_of(content[:NUM_BYTES]))):
        raise DataError(f"{where}: a picture is not embedded as the bytes of a JPEG, PNG, GIF or WebP file")
    name = hashlib.sha256(content).hexdigest()[:24] + ending
    path = folder / name
    if not path.is_file() or path.stat().st_size != len(content):
        staged = path.with_name(STAGING + name)
        staged.write_bytes(content)
        staged.replace(path)
    return f"{PICTURES}/{folder.name}/{name}"
