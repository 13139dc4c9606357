"""Regions of pictures as conversations, in the words of the Inner-Adaptor release."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.data_tools.convert.writing import Row, Summary, WriteOptions, is_unicode, media_path, write_rows

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}"
SEPARATOR = "; "
TAG = "<image>\n"
ROUNDING = 1.0
"""Pixels by which annotated boxes may leave the picture; the padded square they never leave."""


@dataclass(frozen=True)
class Region:
    """What an expression describes.

    Attributes:
        expression: Description in words.
        boxes: `(x1, y1, x2, y2)` in pixels, one or more.
        id: Of its conversation, unique in the file.
    """

    expression: str
    boxes: Sequence[Sequence[float]]
    id: str


@dataclass(frozen=True)
class Picture:
    """One picture with its regions.

    Attributes:
        id: Of its conversation, unique in the file.
        file: Path, as the dataset has it.
        width: In pixels.
        height: In pixels.
        regions: In the dataset's order.
    """

    id: str
    file: str
    width: float
    height: float
    regions: Sequence[Region]


@dataclass(frozen=True)
class ConversationOptions(WriteOptions):
    """How conversations are made.

    Attributes:
        group: One conversation a region, or one a picture, with a turn for each of its regions.
        decimals: Of coordinates.
        max_turns: Regions of one conversation; a picture with more has several. None: no limit.
        max_boxes: Regions with more boxes are skipped. None: no limit.
    """

    group: Literal["region", "picture"] = "region"
    decimals: int = 3
    max_turns: int | None = None
    max_boxes: int | None = None


@dataclass
class RegionSummary(Summary):
    """What a conversion wrote and skipped.

    Attributes:
        num_regions: Questions and answers.
        num_boxes: In the answers.
    """

    num_regions: int = 0
    num_boxes: int = 0
    _pictures: set[str] = field(default_factory=set, repr=False)

    @property
    def num_pictures(self) -> int:
        """Pictures that have a conversation."""
        return len(self._pictures)

    def count(self, row: Row) -> None:
        """Take a conversation into account that was written."""
        super().count(row)
        answers = [turn["value"] for turn in row["conversations"][1::2]]
        self._pictures.add(row["image"])
        self.num_regions += len(answers)
        self.num_boxes += sum(answer.count(SEPARATOR) + 1 for answer in answers)

    def counts(self) -> Iterator[tuple[int, str, str]]:
        """How many of what were written, as number, singular and plural."""
        yield self.num_pictures, "picture", "pictures"
        yield from super().counts()
        yield self.num_regions, "region", "regions"
        yield self.num_boxes, "box", "boxes"


def write_conversations(
    pictures: Iterable[Picture], output: Path, options: ConversationOptions, skipped: Counter[str]
) -> RegionSummary:
    """Write the conversations of some pictures as a LLaVA file, which appears when it is complete.

    Args:
        pictures: Read one by one.
        output: The JSON file; its folder is made.
        options: How conversations are made.
        skipped: Number of items skipped before and here, by reason.

    Raises:
        DataError: There is nothing to write.
    """
    summary = RegionSummary(output, skipped=skipped)
    write_rows(_rows(pictures, options, skipped), options, summary)
    return summary


def _rows(pictures: Iterable[Picture], options: ConversationOptions, skipped: Counter[str]) -> Iterator[Row]:
    for picture in pictures:
        if not all(is_number(size) and size > 0 for size in (picture.width, picture.height)):
            skipped["pictures without a size"] += 1
        elif not is_unicode(picture.id):
            skipped["pictures with names that are not Unicode"] += 1
        elif (path := media_path(picture.file, "pictures", options, skipped)) is not None:
            regions = [(r.id, *turns) for r in picture.regions if (turns := _turns(r, picture, options, skipped))]
            yield from _conversations(picture.id, path, regions, options)


def _conversations(
    name: str, path: str, regions: Sequence[tuple[str, str, str]], options: ConversationOptions
) -> Iterator[Row]:
    size = 1 if options.group == "region" else options.max_turns or len(regions) or 1
    for start in range(0, len(regions), size):
        part = regions[start : start + size]
        turns = []
        for number, (_, question, answer) in enumerate(part):
            turns.append({"from": "human", "value": ("" if number else TAG) + question})
            turns.append({"from": "gpt", "value": answer})
        row_id = part[0][0] if options.group == "region" else f"{name}_{start}" if start else name
        yield {"id": row_id, "image": path, "conversations": turns}


def _turns(
    region: Region, picture: Picture, options: ConversationOptions, skipped: Counter[str]
) -> tuple[str, str] | None:
    expression = " ".join(region.expression.replace(TAG.strip(), " ").split())
    if not expression or not is_unicode(expression + region.id):
        skipped["expressions that are not Unicode" if expression else "empty expressions"] += 1
        return None
    boxes = []
    for box in region.boxes:
        fractions = [min(max(value, 0.0), 1.0) for value in pad_box(box, picture.width, picture.height)]
        if _has_area(box) and not _is_inside(box, picture):
            skipped["boxes that leave the picture"] += 1
        elif _has_area([round(value, options.decimals) for value in fractions]):  # as it is written
            boxes.append(fractions)
        else:
            skipped["boxes without an area"] += 1
    if options.max_boxes is not None and len(boxes) > options.max_boxes:
        skipped[f"regions of more than {options.max_boxes} boxes"] += 1
        return None
    answer = SEPARATOR.join(format_box(box, decimals=options.decimals) for box in boxes)
    return (PROMPT.format(expression), answer) if answer else None


def _is_inside(box: Sequence[float], picture: Picture) -> bool:
    x1, y1, x2, y2 = box
    return min(x1, y1) >= -ROUNDING and x2 <= picture.width + ROUNDING and y2 <= picture.height + ROUNDING


def _has_area(box: Sequence[float]) -> bool:
    x1, y1, x2, y2 = box
    return x1 < x2 and y1 < y2


def is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON may hold anything."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
