"""The documented commands, on miniatures of the downloads, write what the paper's recipe reads."""

from __future__ import annotations

import json
import pickle
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from adaptkit.cli import cli
from adaptkit.data_tools.check import plan_recipe, run_check
from adaptkit.data_tools.plan import load_registry, plan_data
from adaptkit.data_tools.translate import LostError, find_language, translate_file
from adaptkit.recipe import load_recipe
from tests import releases
from tests.docs.blocks import REPOSITORY, blocks

PAGE = REPOSITORY / "docs" / "how-to" / "grounding-data.md"
WHOLE = REPOSITORY / "docs" / "how-to" / "run-the-paper.md"
RECIPE = REPOSITORY / "recipes" / "iaa_vision_llama3.yaml"
ANNOTATION = (
    "<annotation><filename>36979.jpg</filename><size><width>50</width><height>40</height></size>"
    "<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>26</xmax><ymax>31</ymax></bndbox></object>"
    "</annotation>"
)
REF = {"ref_id": 1, "ann_id": 1, "image_id": 9, "split": "train", "sentences": [{"sent": "the cat", "sent_id": 0}]}


def commands(page: Path = PAGE, what: str = "convert") -> list[list[str]]:
    """Arguments of a page's conversions into the folder of the recipe's data."""
    lines = [line for block in blocks(page) if block.skip for line in block.code.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"adaptkit data {what}")]


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


def run(lines: list[list[str]], data: Path) -> None:
    for arguments in lines:
        result = CliRunner().invoke(cli, [argument.replace("$ADAPTKIT_DATA", str(data)) for argument in arguments])
        assert result.exit_code == 0, result.output


def test_the_recipe_reads_what_the_documented_commands_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_downloads(tmp_path / "downloads")
    write_pictures(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "downloads")
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path / "data"))
    assert len(commands()) == 4
    run(commands(), tmp_path / "data")
    recipe = load_recipe(RECIPE)
    report = run_check(plan_recipe(recipe), workers=1)
    assert set(report.findings) == set(recipe.stage("ground").data)
    assert {name: (found.num_samples, found.num_bad) for name, found in report.findings.items()} == {
        "refcoco": (3, 0),
        "coco": (1, 0),
        "flickr30k_entities": (1, 0),
        "objects365": (1, 0),
    }


# -- the page from an empty disk to a running job --------------------------------------------------------------------


class Chinese:
    """Stands in for a model: every word is one character."""

    by_sentence = True

    def translate(self, texts: Sequence[str]) -> list[str | LostError]:
        return [re.sub("[A-Za-z]+", "字", text) for text in texts]


def write_llava(path: Path, picture: str, words: str) -> None:
    """A file of LLaVA's or ALLaVA's layout, and its picture."""
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": words}]
    write(path, json.dumps([{"id": "1", "image": picture, "conversations": turns}] * 2))


def write_questions_and_pictures(downloads: Path, data: Path) -> None:
    releases.write_docvqa(downloads / "val").rename(downloads / "val_v1.0_withQT.json")
    release = json.loads(releases.write_docvqa(downloads).read_text())
    for row in release["data"]:
        row["questionId"] += 1000
    releases.write_json(downloads / "train_v1.0_withQT.json", release)
    releases.write_vsr(downloads).rename(downloads / "all_vsr_validated_data.jsonl")
    releases.write_scienceqa(data / "ScienceQA")
    write_llava(data / "LLaVA-Pretrain" / "blip_laion_cc_sbu_558k.json", "00000/1.jpg", "A cat.")
    write_llava(data / "LLaVA-Instruct" / "llava_v1_5_mix665k.json", "coco/train2017/1.jpg", "A cat.")
    for name in ("Caption", "Instruct"):
        laion = data / "ALLaVA-4V" / "allava_laion"
        write_llava(laion / f"ALLaVA-{name}-LAION-4V.json", "allava_laion/images/1.jpeg", "A cat sits here now.")
    for name in (
        "LLaVA-Pretrain/00000/1.jpg", "LLaVA-Instruct/coco/train2017/1.jpg", "ALLaVA-4V/allava_laion/images/1.jpeg",
        "DocVQA/documents/a_1.png", "VSR/images/000000000009.jpg", "VSR/images/000000000025.jpg",
    ):  # fmt: skip
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), "red").save(data / name)


def translate(arguments: list[str], data: Path) -> None:
    """As the command does, with another model."""
    places = [Path(a.replace("$ADAPTKIT_DATA", str(data))) for a in arguments]
    options = dict(pairwise(arguments))
    output = places[arguments.index("--output") + 1]
    target, limit = find_language(options["--to"]), int(options["--limit"])
    summary = translate_file(places[2], output, target, Chinese, {}, limit=limit)
    assert summary.num_translated == 2


def test_nothing_is_missing_after_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    write_downloads(tmp_path / "downloads")
    write_pictures(data)
    write_questions_and_pictures(tmp_path / "downloads", data)
    monkeypatch.chdir(tmp_path / "downloads")
    monkeypatch.setenv("ADAPTKIT_DATA", str(data))
    lines = commands(WHOLE)
    run([line for line in lines if line[2] != "librispeech"], data)
    for arguments in commands(WHOLE, "translate"):
        translate(arguments, data)
    recipe = load_recipe(RECIPE)
    assert plan_data(recipe, load_registry()).missing_datasets() == []
    report = run_check(plan_recipe(recipe), workers=1)
    assert len(report.findings) == len(recipe.data) == 11
    assert {name: found.num_bad for name, found in report.findings.items()} == dict.fromkeys(recipe.data, 0)
    report = run_check(plan_recipe(load_recipe(RECIPE.with_name("lavin_mma_llama.yaml"))), workers=1)
    assert [(found.num_samples, found.num_bad) for found in report.findings.values()] == [(2, 0)]


def test_the_speech_recipe_reads_what_the_page_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    data = tmp_path / "data"
    for subset in ("train-clean-100", "train-clean-360", "train-other-500"):
        place = releases.write_librispeech(data / "LibriSpeech", subset)
        for number in range(2):
            soundfile.write(place / f"103-1240-000{number}.flac", [0.5, -0.5] * 800, 16_000)
    monkeypatch.setenv("ADAPTKIT_DATA", str(data))
    run([line for line in commands(WHOLE) if line[2] == "librispeech"], data)
    recipe = load_recipe(RECIPE.with_name("whisper_librispeech_llama3.yaml"))
    assert plan_data(recipe, load_registry()).missing_datasets() == []
    report = run_check(plan_recipe(recipe), workers=1)
    assert [(found.num_samples, found.num_bad) for found in report.findings.values()] == [(6, 0)]
