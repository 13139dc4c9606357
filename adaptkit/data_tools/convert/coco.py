"""Detection datasets of COCO's layout: a region is a category, with the boxes of all its objects in the picture."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.chat.boxes import Box
from adaptkit.data_tools.convert.conversations import (
    ConversationOptions,
    Picture,
    Region,
    RegionSummary,
    is_number,
    write_conversations,
)
from adaptkit.errors import DataError
from adaptkit.files.json_stream import Progress, read_lists

PER_PICTURE = ConversationOptions(group="picture")
_PICTURES_PER_TICK = 1_000


def convert_coco(
    annotations: Path, output: Path, options: ConversationOptions = PER_PICTURE, progress: Progress | None = None
) -> RegionSummary:
    """Write COCO's detection annotations as conversations; crowds are skipped.

    Args:
        annotations: `instances_train2017.json` or a file of its layout.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.

    Raises:
        DataError: The file is missing or malformed, or holds nothing to write.
    """
    return _convert(_Detection("coco", ("iscrowd",)), annotations, output, options, progress)


def convert_objects365(
    annotations: Path,
    output: Path,
    options: ConversationOptions = PER_PICTURE,
    progress: Progress | None = None,
    *,
    skip_fake: bool = False,
    skip_reflected: bool = False,
) -> RegionSummary:
    """Write Objects365's annotations as conversations; as `convert_coco`, but for what follows.

    Args:
        annotations: `zhiyuan_objv2_train.json` or a file of its layout.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.
        skip_fake: Skip objects that are only depicted (`isfake`).
        skip_reflected: Skip objects in mirrors (`isreflected`).
    """
    flags = ["iscrowd", *(["isfake"] if skip_fake else []), *(["isreflected"] if skip_reflected else [])]
    return _convert(_Detection("objects365", tuple(flags)), annotations, output, options, progress)


def _convert(
    dataset: _Detection, path: Path, output: Path, options: ConversationOptions, progress: Progress | None
) -> RegionSummary:
    for name, entry in read_lists(path, ("images", "annotations", "categories"), progress):
        getattr(dataset, f"add_{name}")(entry)
    return write_conversations(dataset.pictures(progress), output, options, dataset.skipped)


def read_picture(entry: Any) -> tuple[Any, str, float, float] | None:
    """Id, path, width and height of an entry of `images`; None where it has no id or path. A size may be missing."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
        return None
    file = entry.get("file_name")
    if not isinstance(file, str) or not file:
        return None
    width, height = (entry[key] if is_number(entry.get(key)) else 0 for key in ("width", "height"))
    return entry["id"], file, width, height


def read_box(entry: Any) -> Box | None:
    """Corners of an annotation's box, which is `[x, y, width, height]`; None for anything else."""
    try:
        x, y, width, height = entry["bbox"]
        right, bottom = x + width, y + height
        finite = math.isfinite(right + bottom)
    except (KeyError, TypeError, ValueError, OverflowError):  # checked by use: there are tens of millions
        return None
    return (x, y, right, bottom) if finite else None


@dataclass
class _Detection:
    """The annotations of a detection dataset, a few dozen bytes each: there are tens of millions.

    Attributes:
        name: What ids begin with.
        flags: Annotations where one of these keys is set are skipped.
        skipped: Number of skipped items, by reason.
    """

    name: str
    flags: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    _categories: dict[Any, str] = field(default_factory=dict)
    _pictures: list[tuple[int, str, float, float]] = field(default_factory=list)
    _numbers: dict[Any, int] = field(default_factory=dict)
    _keys: list[array[Any]] = field(default_factory=lambda: [array("q"), array("q")])
    _boxes: array[float] = field(default_factory=lambda: array("d"))

    def add_images(self, entry: Any) -> None:
        read = read_picture(entry)
        if read is None:
            self.skipped["malformed pictures"] += 1
        else:
            self._pictures.append((self._number(read[0]), *read[1:]))

    def add_categories(self, entry: Any) -> None:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str):
            self._categories[entry["id"]] = entry["name"]
        else:
            self.skipped["malformed categories"] += 1

    def add_annotations(self, entry: Any) -> None:
        box = read_box(entry)
        if box is None or not isinstance(entry.get("image_id"), int | str):
            self.skipped["annotations without a box"] += 1
        elif not isinstance(entry.get("category_id"), int) or abs(entry["category_id"]) >= 2**63:
            self.skipped["objects of no known category"] += 1
        elif flag := next((flag for flag in self.flags if entry.get(flag)), ""):
            self.skipped[f"objects with {flag}"] += 1
        else:
            self._keys[0].append(self._number(entry["image_id"]))
            self._keys[1].append(entry["category_id"])
            self._boxes.extend(box)

    def _number(self, picture_id: Any) -> int:
        """A picture's number, given when its id is first met, in whichever list."""
        return self._numbers.setdefault(picture_id, len(self._numbers))

    def pictures(self, progress: Progress | None) -> Iterator[Picture]:
        """The pictures in the file's order, each with a region for each category."""
        numbers, categories = (np.frombuffer(keys, dtype=np.int64) for keys in self._keys)
        boxes = np.frombuffer(self._boxes, dtype=np.float64).reshape(-1, 4)
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], np.arange(len(self._numbers) + 1))
        ids = list(self._numbers)
        if num_orphans := int(np.isin(numbers, [number for number, *_ in self._pictures], invert=True).sum()):
            self.skipped["objects of pictures that are not listed"] = num_orphans
        for count, (number, file, width, height) in enumerate(self._pictures, start=1):
            rows = order[starts[number] : starts[number + 1]]
            name = f"{self.name}_{ids[number]}"
            regions = list(self._regions(name, zip(categories[rows].tolist(), boxes[rows].tolist())))
            if not regions:
                self.skipped["pictures without objects"] += 1
            yield Picture(name, file, width, height, regions)
            if progress is not None and (count % _PICTURES_PER_TICK == 0 or count == len(self._pictures)):
                progress(count, len(self._pictures), "writing conversations")

    def _regions(self, name: str, objects: Iterable[tuple[int, list[float]]]) -> Iterator[Region]:
        found: dict[int, list[list[float]]] = {}
        for category, box in objects:
            found.setdefault(category, []).append(box)
        for category, boxes in found.items():
            if category in self._categories:
                yield Region(self._categories[category], boxes, f"{name}_{category}")
            else:
                self.skipped["objects of no known category"] += len(boxes)


def read_boxes(
    path: Path, wanted: set[int], progress: Progress | None = None
) -> tuple[dict[Any, tuple[str, float, float]], dict[int, Box]]:
    """Pictures of a COCO file by id, as `(path, width, height)`, and the corners of the boxes of some annotations.

    Args:
        path: The file.
        wanted: Ids of annotations.
        progress: Called with the progress.

    Raises:
        DataError: The file is missing or malformed.
    """
    pictures: dict[Any, tuple[str, float, float]] = {}
    boxes: dict[int, Box] = {}
    for name, entry in read_lists(path, ("images", "annotations"), progress):
        if name == "images":
            read = read_picture(entry)
            if read is not None:
                pictures[read[0]] = read[1:]
        elif isinstance(entry, dict) and isinstance(entry.get("id"), int) and entry["id"] in wanted:
            box = read_box(entry)
            if box is not None:
                boxes[entry["id"]] = box
    if not pictures:
        raise DataError(f"{path}: no picture has an id and a file_name")
    return pictures, boxes
