"""Converters against the published layouts, the official padding rule, and what goes wrong in real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data_tools.convert import (
    ConversationOptions,
    convert_coco,
    convert_flickr30k,
    convert_objects365,
    convert_refcoco,
)
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager

PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: "


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def answers(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Expressions of a conversation and the text of their boxes."""
    turns = [turn["value"].removeprefix("<image>\n") for turn in row["conversations"]]
    assert all(question.startswith(PROMPT) for question in turns[::2])
    return [(question.removeprefix(PROMPT), answer) for question, answer in zip(turns[::2], turns[1::2])]


def text(boxes: list[list[float]], decimals: int = 3) -> str:
    return "; ".join("[" + ",".join(f"{value:.{decimals}f}" for value in box) + "]" for box in boxes)


def padded(box: list[float], width: int, height: int) -> list[float]:
    """The rule as the data's documentation words it, independently of `adaptkit.chat.boxes`."""
    big = max(width, height)
    bw, bh = (big - width) // 2, (big - height) // 2
    x1, y1, x2, y2 = box
    return [(x1 + bw) / big, (y1 + bh) / big, (x2 + bw) / big, (y2 + bh) / big]


# -- the samples in the published layouts ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["testA", "all"])
def test_refcoco_is_as_expected(shared: Path, tmp_path: Path, split: str) -> None:
    folder = shared / "data" / "formats" / "refcoco"
    summary = convert_refcoco([folder], tmp_path / "out.json", split=split)
    lines = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    expected = {f"refcoco_{line['sent_id']}": line for line in lines if split in ("all", line["split"])}
    rows = read(tmp_path / "out.json")
    assert {row["id"] for row in rows} == set(expected)
    for row in rows:
        line = expected[row["id"]]
        assert row["image"] == line["img_path"]
        assert answers(row) == [(line["expression"], text([line["bbox_padded_norm"]]))]
    assert (summary.num_conversations, summary.num_boxes) == (len(expected), len(expected))
    assert summary.num_pictures == len({line["img_path"] for line in expected.values()})


def test_flickr30k_is_as_expected(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "formats" / "flickr30k_entities"
    summary = convert_flickr30k(folder, tmp_path / "out.json", ConversationOptions(decimals=6), split="all")
    phrases = json.loads((folder / "expected.json").read_text())["phrases"]
    expected = [(p["phrase"], text(p["boxes_padded_norm"], 6)) for p in phrases if p["boxes_padded_norm"]]
    found = [pair for row in read(tmp_path / "out.json") for pair in answers(row)]
    assert [phrase for phrase, _ in found] == [phrase for phrase, _ in expected]
    for (_, answer), (_, wanted) in zip(found, expected):
        numbers, others = (
            [float(n) for n in t.replace("[", "").replace("]", "").replace("; ", ",").split(",")]
            for t in (answer, wanted)
        )
        assert numbers == pytest.approx(others, abs=1.1e-6)  # the expected file is rounded to six decimals by itself
    assert summary.skipped == {"phrases without a box": 2, "phrases of nothing visible": 1}


def test_objects365_has_every_object_but_crowds(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "formats" / "objects365.json"
    options = ConversationOptions(group="picture", strip_folders=2)
    summary = convert_objects365(path, tmp_path / "out.json", options)
    dataset = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    rows = {row["id"]: row for row in read(tmp_path / "out.json")}
    for picture in dataset["images"]:
        objects = [a for a in dataset["annotations"] if a["image_id"] == picture["id"] and not a["iscrowd"]]
        expected: dict[str, list[list[float]]] = {}
        for a in objects:
            x, y, w, h = a["bbox"]
            box = padded([x, y, x + w, y + h], picture["width"], picture["height"])
            expected.setdefault(names[a["category_id"]], []).append(box)
        row = rows.pop(f"objects365_{picture['id']}")
        assert dict(answers(row)) == {name: text(boxes) for name, boxes in expected.items()}
        assert row["image"] == picture["file_name"].removeprefix("images/v1/")
    assert not rows
    crowds = sum(a["iscrowd"] for a in dataset["annotations"])
    assert summary.skipped == {"objects with iscrowd": crowds}
    assert crowds


def test_what_is_written_is_read_by_the_ordinary_reader(shared: Path, tmp_path: Path) -> None:
    formats = shared / "data" / "formats"
    output = tmp_path / "out.json"
    convert_refcoco([formats / "refcoco"], output, split="all")
    options = {"path": "out.json", "media": str(shared / "data" / "nlvr" / "train" / "images")}
    context = DataContext(tmp_path, {"image": "<image>"}, tmp_path)
    llava = get_plugin_manager().get("data source", "llava")
    source = llava.build(llava.options(**options), context)
    samples = [source[i] for i in range(len(source))]
    assert len(samples) == 48
    assert [part["type"] for part in samples[0].messages[0]["content"]] == ["image", "text"]
    assert samples[0].messages[1]["content"] == [{"type": "text", "text": "[0.125,0.550,0.200,0.625]"}]


# -- COCO's layout, made here ----------------------------------------------------------------------------------------


def coco_file(folder: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    """A file of two pictures, 400 by 100 and 100 by 301 pixels, and two categories."""
    images = [
        {"id": 7, "file_name": "wide.jpg", "width": 400, "height": 100},
        {"id": 3, "file_name": "tall.jpg", "width": 100, "height": 301},
    ]
    filled = [{"id": i, "image_id": 7, "category_id": 1, "iscrowd": 0, **a} for i, a in enumerate(annotations)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"info": {}, "annotations": filled, "images": images, "categories": categories} | more))
    return path


def test_boxes_that_are_none_are_counted_and_left_out(tmp_path: Path) -> None:
    path = coco_file(
        tmp_path,
        [
            {"bbox": [10, 10, 20, 20]},
            {"bbox": [10, 10, 0, 20]},  # no area
            {"bbox": [10, 10, -5, 20]},  # reversed
            {"bbox": [390, 10, 20, 20]},  # beyond the right edge
            {"bbox": [-0.4, 90, 20, 10.6]},  # within rounding
            {"bbox": [10, 10, 0.1, 20]},  # no area to three decimals
            {"bbox": [-0.9, 10, 0.8, 20]},  # none within the square
            {"bbox": [1, 2, 3]},
            {"bbox": [1, 2, 3, "4"]},
            {"bbox": [1, 2, 3, float("nan")]},
            {"bbox": [1, 2, 3, 4], "category_id": 9},
            {"bbox": [1, 2, 3, 4], "image_id": 99},
            {"bbox": [1, 2, 3, 4], "iscrowd": 1},
            {},
        ],
    )
    summary = convert_coco(path, tmp_path / "out.json")
    assert summary.skipped == {
        "boxes without an area": 4,
        "boxes that leave the picture": 1,
        "annotations without a box": 4,
        "objects of no known category": 1,
        "objects of pictures that are not listed": 1,
        "objects with iscrowd": 1,
        "pictures without objects": 1,
    }
    (row,) = read(tmp_path / "out.json")
    # It leaves the picture by 0.6 pixels, on the border, and the square by 0.4, where it is cut
    expected = [padded(box, 400, 100) for box in ([10, 10, 30, 30], [0, 90, 19.6, 100.6])]
    assert answers(row) == [("cat", text(expected))]
    assert all(f"{reason} ({count})" in str(summary) for reason, count in summary.skipped.items())


def test_integer_borders_of_an_odd_difference(tmp_path: Path) -> None:
    """(301 - 100) / 2 is 100.5: the official rule takes 100."""
    path = coco_file(tmp_path, [{"bbox": [0, 0, 100, 301], "image_id": 3}])
    convert_coco(path, tmp_path / "out.json", ConversationOptions(decimals=5))
    (row,) = read(tmp_path / "out.json")
    assert answers(row) == [("cat", "[0.33223,0.00000,0.66445,1.00000]")]


def test_groups_turns_and_boxes(tmp_path: Path) -> None:
    boxes = [{"bbox": [10 * i, 10, 5, 5], "category_id": 1 + (i > 0)} for i in range(4)]
    path = coco_file(tmp_path, [*boxes, {"bbox": [1, 2, 3, 4], "image_id": 3}])
    output = tmp_path / "out.json"

    def shapes(**options: Any) -> list[tuple[str, int]]:
        convert_coco(path, output, ConversationOptions(**options))
        rows = read(output)
        assert all(row["conversations"][0]["value"].startswith("<image>\n") for row in rows)
        assert all("<image>" not in turn["value"] for row in rows for turn in row["conversations"][1:])
        return [(row["id"], len(row["conversations"]) // 2) for row in rows]

    assert shapes(group="picture") == [("coco_7", 2), ("coco_3", 1)]
    assert shapes(group="picture", max_turns=1) == [("coco_7", 1), ("coco_7_1", 1), ("coco_3", 1)]
    assert shapes(group="region") == [("coco_7_1", 1), ("coco_7_2", 1), ("coco_3_1", 1)]
    assert shapes(group="region", max_boxes=2) == [("coco_7_1", 1), ("coco_3_1", 1)]


def test_paths_of_pictures(tmp_path: Path) -> None:
    path = coco_file(tmp_path, [{"bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4], "image_id": 3}])
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "tall.jpg").touch()
    summary = convert_coco(path, tmp_path / "out.json", ConversationOptions(prefix="train", media=tmp_path))
    assert [row["image"] for row in read(tmp_path / "out.json")] == ["train/tall.jpg"]
    assert summary.skipped == {"pictures that are not there": 1}


def test_a_limit_takes_the_first_or_draws(tmp_path: Path) -> None:
    path = coco_file(tmp_path, [{"bbox": [1, 2, 3, 4], "category_id": 1, "image_id": 100 + i} for i in range(40)])
    pictures = [{"id": 100 + i, "file_name": f"{i}.jpg", "width": 10, "height": 10} for i in range(40)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": pictures}))

    def drawn(seed: int | None) -> list[int]:
        convert_coco(path, tmp_path / "out.json", ConversationOptions(limit=10, seed=seed))
        return [int(row["image"].removesuffix(".jpg")) for row in read(tmp_path / "out.json")]

    assert drawn(None) == list(range(10))
    draws = [drawn(seed) for seed in range(60)]
    assert draws[0] == drawn(0)
    assert all(draw == sorted(set(draw)) and len(draw) == 10 for draw in draws)
    # 600 draws of 40 pictures: 15 each; fewer than 4 or more than 30 has a chance below one in a thousand
    counts = [sum(i in draw for draw in draws) for i in range(40)]
    assert 4 <= min(counts) <= max(counts) <= 30


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object with"),
        ('{"images": {}}', "'images' is not a list"),
        ('{"images": [], "categories": []}', "no list of annotations"),
        ('{"images": [], "annotations": [{"id": 1,}], "categories": []}', "not valid JSON"),
        ('{"images": [] "annotations": []}', "'}' expected"),
        ('{"images": [], "annotations": [], "categories": []}', "no conversation to write"),
        ("\xff", "not valid JSON"),
        ('{"images": [], "annotations": [], "categories": []}\n{"images": []}', "more than one value"),
        ('{"images": ' + "[" * 100_000, "nested too deeply"),
        ("", "not an object"),
    ],
)
def test_malformed_json_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        convert_coco(path, tmp_path / "out.json")
    assert "json" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["instances.json"], "nothing half-written is left"


def test_lists_are_read_alike_wherever_chunks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [{"bbox": [1.25, 12, 3 + i, 4e0], "note": 'é "quoted" ]}\\'} for i in range(5)]
    path = coco_file(tmp_path, boxes, version=12345)
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=3), encoding="utf-8")
    convert_coco(path, tmp_path / "whole.json")
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr("adaptkit.files.json_stream.CHUNK_BYTES", size)
        convert_coco(path, tmp_path / "chunks.json")
        assert read(tmp_path / "chunks.json") == read(tmp_path / "whole.json")
