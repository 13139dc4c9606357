"""VSR's release: captions as JSON Lines, about pictures of COCO 2017."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.release import Release
from adaptkit.files.folder import check

_FOLDERS = ("images", "trainval2017", "train2017", "val2017")
PLACES = tuple(f"{where}{folder}" for where in ("", "data/", "../", "../../") for folder in _FOLDERS)


def features(config: str) -> Any:
    """Columns of the hub's dataset, with the picture in place of its name."""
    from datasets import Features, Image, Value

    text = Value("string")
    columns = {"image": Image(), "image_link": text, "caption": text, "label": Value("int64"), "relation": text}
    return Features({**columns, "subj": text, "obj": text})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a caption."""
    for where, row in release.rows(files[0]):
        check(row, where, image=str, caption=str, label=int, relation=str)
        if row["label"] not in (0, 1):
            raise DataError(f"{where}: the label must be 0 or 1, not {row['label']}")
        link = str(row.get("image_link", ""))
        parts = link.split("/")[-2:-1] if "2017/" in link else []
        yield {
            "image": release.picture(row["image"], where, (*PLACES, *parts)),
            "image_link": link,
            **{key: row[key] for key in ("caption", "label", "relation")},
            **{key: row.get(key) for key in ("subj", "obj")},
        }
