"""RefCOCO, RefCOCO+ and RefCOCOg: expressions for single objects of COCO's pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data_tools.convert.coco import read_boxes
from adaptkit.data_tools.convert.conversations import (
    ConversationOptions,
    Picture,
    Region,
    RegionSummary,
    write_conversations,
)
from adaptkit.errors import DataError, unknown_name
from adaptkit.files.json_stream import Progress
from adaptkit.files.pickles import load_plain_pickle

INSTANCES_FILE = "instances.json"
_REFS_FILE = re.compile(r"refs\((\w+)\)\.p")


def convert_refcoco(
    folders: Sequence[Path],
    output: Path,
    options: ConversationOptions = ConversationOptions(),  # noqa: B008  # frozen
    progress: Progress | None = None,
    *,
    split: str = "train",
    split_by: Sequence[str] = (),
) -> RegionSummary:
    """Write RefCOCO's expressions as conversations.

    Args:
        folders: `refcoco`, `refcoco+`, `refcocog`, or some of them; each holds `instances.json` and `refs(<by>).p`.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.
        split: One split of the datasets, or `all`.
        split_by: Who made the splits, `unc`, `google` or `umd`, where a folder has several; of those named each folder
            has one.

    Raises:
        DataError: A file is missing, malformed, or a pickle of more than plain values; or the split does not exist.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise DataError(f"two folders have one name, which ids begin with: {', '.join(names)}. Rename one.")
    skipped: Counter[str] = Counter()
    refs = [_refs_of_split(folder, split, split_by) for folder in folders]
    pictures = (
        picture
        for name, folder, found in zip(names, folders, refs)
        for picture in _pictures(name, folder, found, skipped, progress)
    )
    return write_conversations(pictures, output, options, skipped)


def _refs_of_split(folder: Path, split: str, split_by: Sequence[str]) -> list[dict[str, Any]]:
    path = _refs_file(folder, split_by)
    refs = load_plain_pickle(path)
    if not isinstance(refs, list) or not all(
        isinstance(ref, dict) and isinstance(ref.get("split"), str) for ref in refs
    ):
        raise DataError(f"{path}: not a list of references, each with its split")
    splits = sorted({ref["split"] for ref in refs})
    if split != "all" and split not in splits:
        raise DataError(f"{path}: {unknown_name('split', split, [*splits, 'all'])}")
    return refs if split == "all" else [ref for ref in refs if ref["split"] == split]


def _refs_file(folder: Path, split_by: Sequence[str]) -> Path:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: name one that holds {INSTANCES_FILE} and refs(...).p")
    found = {match[1]: path for path in sorted(folder.iterdir()) if (match := _REFS_FILE.fullmatch(path.name))}
    if not found:
        raise DataError(f"{folder}: no file refs(...).p in it, which holds the expressions")
    chosen = [name for name in found if name in split_by or not split_by]
    if not chosen:
        wanted = unknown_name("file of splits by", " or ".join(split_by), found)
        raise DataError(f"{folder}: {wanted}")
    if len(chosen) > 1:
        raise DataError(f"{folder} has splits by {' and by '.join(chosen)}: choose one with --split-by")
    return found[chosen[0]]


def _pictures(
    name: str, folder: Path, refs: Sequence[dict[str, Any]], skipped: Counter[str], progress: Progress | None
) -> Iterator[Picture]:
    wanted = {ref["ann_id"] for ref in refs if isinstance(ref.get("ann_id"), int)}
    pictures, boxes = read_boxes(folder / INSTANCES_FILE, wanted, progress)
    regions: dict[Any, list[Region]] = {}
    for ref in refs:
        sentences = ref.get("sentences")
        if not isinstance(sentences, list) or not isinstance(ref.get("image_id"), int | str):
            skipped["malformed references"] += 1
        elif ref["image_id"] not in pictures:
            skipped["references to pictures that are not listed"] += 1
        elif not isinstance(ref.get("ann_id"), int) or ref["ann_id"] not in boxes:
            skipped["references without a box"] += 1
        else:
            found = regions.setdefault(ref["image_id"], [])
            found += _regions(name, sentences, boxes[ref["ann_id"]], skipped)
    for image_id, found in regions.items():
        # A reference has a file_name too, but with a suffix: it is not the picture's.
        file, width, height = pictures[image_id]
        yield Picture(f"{name}_picture_{image_id}", file, width, height, found)


def _regions(name: str, sentences: Sequence[Any], box: Any, skipped: Counter[str]) -> Iterator[Region]:
    for sentence in sentences:
        text = sentence.get("sent") if isinstance(sentence, dict) else None
        if isinstance(text, str) and isinstance(sentence.get("sent_id"), int):
            yield Region(text, [box], f"{name}_{sentence['sent_id']}")
        else:
            skipped["malformed expressions"] += 1
