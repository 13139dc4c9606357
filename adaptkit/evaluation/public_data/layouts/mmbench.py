"""MMBench's and CCBench's release: a table whose pictures are base64, or the index of the row that has it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.official.mmbench import int_index
from adaptkit.evaluation.public_data.release import Release, check_picture

_TEXT = ("question", "hint", "answer", "A", "B", "C", "D", "category", "source", "L2-category", "comment", "split")
_CCBENCH = ("question", "answer", "A", "B", "C", "D", "category", "source")
_NEEDED = ("index", "question", "answer", "A", "B", "category", "image")
_MAX_REFERENCE = 64
"""Characters: no picture in base64 is as short, and no index as long."""


def features(config: str) -> Any:
    """Columns of the hub's dataset; CCBench has fewer."""
    from datasets import Features, Image, Value

    names = _CCBENCH if config == "cc" else _TEXT
    return Features({"index": Value("int64"), "image": Image(), **{name: Value("string") for name in names}})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of the table; what is empty is `nan`, as in the hub's dataset."""
    names = _CCBENCH if config == "cc" else _TEXT
    needed = [name for name in _NEEDED if name != "answer" or split != "test" or config == "cc"]
    table = release.table(files[0], *needed, delimiter="\t")
    indexed = {int_index(row["index"], where): (where, row["image"]) for where, row in table}
    for where, row in table:
        row = {_hub_name(name): value for name, value in row.items()}
        index = int_index(row["index"], where)
        picture = {"bytes": _picture(indexed, index, where), "path": None}
        yield {"index": index, "image": picture, **{name: row.get(name) or "nan" for name in names}}


def _hub_name(column: str) -> str:
    return {"l2-category": "L2-category"}.get(column, column)


def _picture(indexed: dict[int, tuple[str, str]], index: int, where: str) -> bytes:
    seen = [index]
    encoded = indexed[index][1]
    while len(encoded) <= _MAX_REFERENCE:
        target = int_index(encoded, f"{where}: a picture in base64, or the index of the row that has it, is needed")
        if target in seen or target not in indexed:
            raise DataError(f"{where}: its picture is that of row {target}, which has none either or is missing")
        seen.append(target)
        encoded = indexed[target][1]
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the picture is not base64 ({error})") from error
    check_picture(raw, f"{where}: its image")
    return raw
