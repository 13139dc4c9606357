"""The layout that docs/how-to/real-data.md describes comes out of clones of the public repositories."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import REPOSITORY

ASSETS = REPOSITORY / "docs" / "assets"
PAGE = (REPOSITORY / "docs" / "how-to" / "real-data.md").read_text(encoding="utf-8")
SPLIT = json.loads((ASSETS / "real_data_split.json").read_text(encoding="utf-8"))
COLORS = {"blue": "#0099ff", "black": "Black", "yellow": "Yellow"}
SIZES = {"small": 10, "medium": 20, "large": 30}


@pytest.fixture
def collections() -> Path:
    folder = Path(os.environ.get("ADAPTKIT_SHARED", "nowhere")) / "data"
    if not (folder / "nlvr").is_dir():
        pytest.skip("the collections are not here: ADAPTKIT_SHARED names their folder")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_published(collections: Path, clones: Path) -> None:
    """The public repositories as far as the splits go, made from what came of them; the media are empty files."""
    signs, sounds, nlvr = (
        clones / name for name in ("Sign-Language-Digits-Dataset", "free-spoken-digit-dataset", "nlvr/nlvr/dev")
    )
    for name in (name for split in SPLIT["sign_digits"].values() for name in split):
        digit, photo = name.split("_", 1)
        _touch(signs / "Dataset" / digit / photo)
    for split in ("train", "test"):
        for row in rows(collections / "audio" / "fsdd" / split / "labels.jsonl"):
            _touch(sounds / "recordings" / row["audio"])
    lines = []
    for split in ("train", "test"):
        pictures = {row["image"]: row["objects"] for row in rows(collections / "nlvr" / split / "objects.jsonl")}
        for row in rows(collections / "nlvr" / split / "statements.jsonl"):
            boxes: list[list[dict[str, Any]]] = [[], [], []]
            for item in pictures[row["image"]]:
                number, (left, top, *_) = item["box_index"], item["bbox"]
                place = {"x_loc": left - 150 * number, "y_loc": top, "size": SIZES[item["size"]]}
                boxes[number].append({"type": item["shape"], "color": COLORS[item["color"]], **place})
            label = str(row["label"]).lower()
            example = {"identifier": row["id"], "directory": "3", "label": label, "sentence": row["sentence"]}
            lines.append(json.dumps({**example, "structured_rep": boxes}))
            _touch(nlvr / "images" / "3" / Path(row["image"]).name)
    (nlvr / "dev.json").write_text("\n".join(lines), encoding="utf-8")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_recipes_layout_comes_out_of_the_public_one(collections: Path, tmp_path: Path) -> None:
    as_published(collections, tmp_path / "clones")
    runpy.run_path(str(ASSETS / "real_data.py"))["main"](tmp_path / "clones", tmp_path / "data")
    compared = 0
    for path in sorted((tmp_path / "data").rglob("*.jsonl")):
        expected = rows(collections / path.relative_to(tmp_path / "data"))
        made = rows(path)
        assert len(made) == len(expected)
        for ours, theirs in zip(made, expected, strict=True):
            assert {key: theirs[key] for key in ours} == ours
            media = ours.get("image") or ours.get("audio") or ours["img_path"]
            assert (path.parent / media).is_file()
        compared += 1
    assert compared == 10


def test_the_page_says_how_many_there_are() -> None:
    for split in (*SPLIT["sign_digits"].values(), *SPLIT["nlvr"].values()):
        assert len(set(split)) == len(split)
        assert str(len(split)) in PAGE
