"""Regions of pictures as conversations, in the words of the Inner-Adaptor release."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.errors import DataError
from adaptkit.files.writing import atomic_file

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: {}"
SEPARATOR = "; "
TAG = "<image>\n"
ROUNDING = 1.0
"""Pixels by which annotated boxes may leave the picture; the padded square they never leave."""

Progress = Callable[[int, int, str], None]
"""Called with how much is done, how much there is, and of what."""


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
class ConversationOptions:
    """How conversations are made.

    Attributes:
        group: One conversation a region, or one a picture, with a turn for each of its regions.
        decimals: Of coordinates.
        max_turns: Regions of one conversation; a picture with more has several. None: no limit.
        max_boxes: Regions with more boxes are skipped. None: no limit.
        prefix: Folder put before the pictures' paths.
        strip_folders: Leading folders taken off the dataset's paths.
        media: Folder that the written paths are relative to; pictures that are not in it are skipped. None: no check.
        limit: Write at most so many conversations.
        seed: Draw them at random from all. None: the first.
    """

    group: Literal["region", "picture"] = "region"
    decimals: int = 3
    max_turns: int | None = None
    max_boxes: int | None = None
    prefix: str = ""
    strip_folders: int = 0
    media: Path | None = None
    limit: int | None = None
    seed: int | None = None


@dataclass
class Summary:
    """What a conversion wrote and skipped.

    Attributes:
        path: The file.
        num_pictures: Pictures that have a conversation.
        num_conversations: Of them.
        num_regions: Questions and answers in them.
        num_boxes: In the answers.
        skipped: Number of skipped items, by reason.
    """

    path: Path
    num_pictures: int = 0
    num_conversations: int = 0
    num_regions: int = 0
    num_boxes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = (self.num_pictures, self.num_conversations, self.num_regions, self.num_boxes)
        nouns = (("picture", "s"), ("conversation", "s"), ("region", "s"), ("box", "es"))
        written = [f"{count:,} {noun}{'' if count == 1 else end}" for count, (noun, end) in zip(counts, nouns)]
        return f"{self.path}: {', '.join(written)}. Skipped: {_reasons(self.skipped) or 'nothing'}."


def _reasons(skipped: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count:,})" for reason, count in skipped.most_common())


def write_conversations(
    pictures: Iterable[Picture], output: Path, options: ConversationOptions, skipped: Counter[str]
) -> Summary:
    """Write the conversations of some pictures as a LLaVA file, which appears when it is complete.

    Args:
        pictures: Read one by one.
        output: The JSON file; its folder is made.
        options: How conversations are made.
        skipped: Number of items skipped before and here, by reason.

    Raises:
        DataError: There is nothing to write.
    """
    summary = Summary(output, skipped=skipped)
    rows = _limited(_rows(pictures, options, skipped), options)
    seen: set[str] = set()
    with atomic_file(output) as file:
        for row in rows:
            file.write(("[\n" if not summary.num_conversations else ",\n") + json.dumps(row, ensure_ascii=False))
            answers = [turn["value"] for turn in row["conversations"][1::2]]
            seen.add(row["image"])
            summary.num_conversations += 1
            summary.num_regions += len(answers)
            summary.num_boxes += sum(answer.count(SEPARATOR) + 1 for answer in answers)
        if not summary.num_conversations:
            found = f"skipped: {_reasons(skipped)}" if skipped else "the dataset holds no regions"
            raise DataError(f"no conversation to write to {output}; {found}.")
        file.write("\n]\n")
    summary.num_pictures = len(seen)
    return summary


def _rows(pictures: Iterable[Picture], options: ConversationOptions, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    for picture in pictures:
        path = _written_path(picture.file, options)
        if not all(is_number(size) and size > 0 for size in (picture.width, picture.height)):
            skipped["pictures without a size"] += 1
        elif not _is_unicode(picture.id + path):
            skipped["pictures with names that are not Unicode"] += 1
        elif options.media is not None and not _is_file(options.media / path):
            skipped["pictures that are not there"] += 1
        else:
            regions = [(r.id, *turns) for r in picture.regions if (turns := _turns(r, picture, options, skipped))]
            yield from _conversations(picture.id, path, regions, options)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _is_unicode(text: str) -> bool:
    """Whether it can be written: JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _conversations(
    name: str, path: str, regions: Sequence[tuple[str, str, str]], options: ConversationOptions
) -> Iterator[dict[str, Any]]:
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
    if not expression or not _is_unicode(expression + region.id):
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


def _written_path(file: str, options: ConversationOptions) -> str:
    parts = PurePosixPath(file).parts
    kept = parts[min(options.strip_folders, len(parts) - 1) :]
    return str(PurePosixPath(options.prefix, *kept))


def _limited(rows: Iterator[dict[str, Any]], options: ConversationOptions) -> Iterable[dict[str, Any]]:
    """The first rows, or as many drawn at random, every choice equally likely, in their order."""
    if options.limit is None:
        return rows
    if options.seed is None:
        return (row for row, _ in zip(rows, range(options.limit)))
    rng = random.Random(options.seed)
    drawn: list[tuple[int, dict[str, Any]]] = []
    for number, row in enumerate(rows):
        if number < options.limit:
            drawn.append((number, row))
        elif (place := rng.randrange(number + 1)) < options.limit:
            drawn[place] = (number, row)
    return (row for _, row in sorted(drawn, key=lambda pair: pair[0]))
