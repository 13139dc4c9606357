"""Named objects and their boxes beside a conversation, as ms-swift writes them, put where its texts mark them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.data.media import shown
from adaptkit.errors import DataError
from adaptkit.interfaces import Message

BoxSizes = Mapping[str, Callable[[Any], tuple[int, int] | None]]

_NAME, _BOX = "<ref-object>", "<bbox>"
_TAGS = re.compile(f"({_NAME}|{_BOX})")
_UNITS = ("real", "norm1")


def place_objects(row: Mapping[str, Any], messages: Sequence[Message], sizes: BoxSizes) -> None:
    """Write names and boxes into the texts that have `<ref-object>` and `<bbox>`, where the row has `objects`.

    Boxes become fractions of the padded square, as adaptkit reads and writes them everywhere.

    Args:
        row: May have `objects`: `ref`, a list of names; `bbox`, a list of `[x1, y1, x2, y2]` in pixels, or in fractions
            of width and height where `bbox_type` is `norm1`; and, under a modality's name with `_id`, the number of the
            medium of each box.
        messages: Its conversation, changed in place.
        sizes: For each modality what gives the size of a medium.

    Raises:
        DataError: The objects are malformed, or not as many as their tags.
    """
    objects = row.get("objects")
    texts = [part for message in messages for part in message["content"] if part["type"] == "text"]
    if not objects or not any(_TAGS.search(part["text"]) for part in texts):
        return
    if not isinstance(objects, Mapping):
        raise DataError(f"'objects' must be an object with the lists 'ref' and 'bbox', not {shown(objects)}")
    media = [part for message in messages for part in message["content"] if part["type"] in sizes]
    names, boxes = _names(objects), _boxes(objects, [(part["type"], part[part["type"]]) for part in media], sizes)
    waiting: dict[str, Iterator[str]] = {_NAME: iter(names), _BOX: iter(boxes)}
    counts = {tag: sum(part["text"].count(tag) for part in texts) for tag in waiting}
    for tag, key, given in ((_NAME, "ref", names), (_BOX, "bbox", boxes)):
        if counts[tag] != len(given):
            message = f"{len(given)} under {key!r} of 'objects', but {counts[tag]} {tag} in the conversation"
            raise DataError(message, kind="tag_count")
    for part in texts:
        part["text"] = "".join(
            next(waiting[piece]) if piece in waiting else piece for piece in _TAGS.split(part["text"])
        )


def _names(objects: Mapping[str, Any]) -> list[str]:
    names = objects.get("ref") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"'ref' of 'objects' must be a list of names, not {shown(names)}")
    return names


def _boxes(objects: Mapping[str, Any], media: Sequence[tuple[str, Any]], sizes: BoxSizes) -> list[str]:
    boxes, units = objects.get("bbox") or [], objects.get("bbox_type") or "real"
    if units not in _UNITS:
        raise DataError(f"'bbox_type' of 'objects' is {shown(units)}; it may be {' or '.join(_UNITS)}")
    if not isinstance(boxes, list) or not all(map(_is_box, boxes)):
        raise DataError(f"'bbox' of 'objects' must be a list of [x1, y1, x2, y2], not {shown(boxes)}")
    numbers = next(filter(None, (objects.get(f"{modality}_id") for modality in sizes)), [0] * len(boxes))
    if not isinstance(numbers, list) or len(numbers) != len(boxes):
        raise DataError(f"the media of the boxes in 'objects' must be a list of a number each, not {shown(numbers)}")
    known: dict[int, tuple[int, int]] = {}
    texts = []
    for (x1, y1, x2, y2), number in zip(boxes, numbers):
        if number not in known:
            known[number] = _size(number, media, sizes)
        width, height = known[number]
        x, y = (width, height) if units == "norm1" else (1, 1)
        if not (-1 <= x1 * x < x2 * x <= width + 1 and -1 <= y1 * y < y2 * y <= height + 1):
            raise DataError(
                f"the box {shown([x1, y1, x2, y2])} of 'objects' does not lie in its medium of {width} by {height} "
                f"pixels: they are x1, y1, x2, y2, in {'fractions' if units == 'norm1' else 'pixels'} (bbox_type)"
            )
        texts.append(format_box(pad_box((x1 * x, y1 * y, x2 * x, y2 * y), width, height)))
    return texts


def _size(number: Any, media: Sequence[tuple[str, Any]], sizes: BoxSizes) -> tuple[int, int]:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(media):
        raise DataError(f"a box lies in medium {shown(number)} of the row, which has {len(media)}", kind="tag_count")
    modality, source = media[number]
    size = sizes[modality](source)
    if size is None:
        raise DataError(f"no box can lie in a medium of {modality!r}")
    return size


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in box)
    )
