"""The documented commands, on miniatures of the downloads, write what the paper's recipe reads."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from adaptkit.cli import cli
from adaptkit.data_tools.check import plan_recipe, run_check
from adaptkit.recipe import load_recipe
from tests.docs.blocks import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "how-to" / "grounding-data.md"
RECIPE = REPOSITORY / "recipes" / "iaa_vision_llama3.yaml"
ANNOTATION = (
    "<annotation><filename>36979.jpg</filename><size><width>50</width><height>40</height></size>"
    "<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>26</xmax><ymax>31</ymax></bndbox></object>"
    "</annotation>"
)
REF = {"ref_id": 1, "ann_id": 1, "image_id": 9, "split": "train", "sentences": [{"sent": "the cat", "sent_id": 0}]}


def commands() -> list[list[str]]:
    """Arguments of the page's conversions into the folder of the recipe's data."""
    lines = [line for block in blocks(PAGE) if block.skip for line in block.code.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("adaptkit data convert")]


def instances(file_name: str) -> str:
    content: dict[str, Any] = {
        "images": [{"id": 9, "file_name": file_name, "width": 50, "height": 40}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 3, "bbox": [1.5, 2, 20, 30], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    return json.dumps(content)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_downloads(folder: Path) -> None:
    splits = {"refcoco": ("unc", "google"), "refcoco+": ("unc",), "refcocog": ("umd", "google")}
    for name, makers in splits.items():
        write(folder / name / "instances.json", instances("COCO_train2014_000000000009.jpg"))
        for maker in makers:
            write(folder / name / f"refs({maker}).p", pickle.dumps([REF], protocol=2))
    write(folder / "annotations" / "instances_train2017.json", instances("000000000009.jpg"))
    write(folder / "zhiyuan_objv2_train.json", instances("images/v1/patch3/objects365_v1_00000009.jpg"))
    write(folder / "flickr30k_entities" / "Annotations" / "36979.xml", ANNOTATION)
    write(folder / "flickr30k_entities" / "Sentences" / "36979.txt", "[/EN#1/people A man] waits .")
    write(folder / "flickr30k_entities" / "train.txt", "36979\n")


def write_pictures(root: Path) -> None:
    """Where the page says that they are."""
    for name in (
        "COCO/train2014/COCO_train2014_000000000009.jpg",
        "COCO/train2017/000000000009.jpg",
        "Flickr30k/flickr30k-images/36979.jpg",
        "Objects365/patch3/objects365_v1_00000009.jpg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), "red").save(root / name)


def test_the_recipe_reads_what_the_documented_commands_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_downloads(tmp_path / "downloads")
    write_pictures(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "downloads")
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path / "data"))
    assert len(commands()) == 4
    for arguments in commands():
        result = CliRunner().invoke(cli, [a.replace("$ADAPTKIT_DATA", str(tmp_path / "data")) for a in arguments])
        assert result.exit_code == 0, result.output
    recipe = load_recipe(RECIPE)
    report = run_check(plan_recipe(recipe), workers=1)
    assert set(report.findings) == set(recipe.stage("ground").data)
    assert {name: (found.num_samples, found.num_bad) for name, found in report.findings.items()} == {
        "refcoco": (3, 0),
        "coco": (1, 0),
        "flickr30k_entities": (1, 0),
        "objects365": (1, 0),
    }
