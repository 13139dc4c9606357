"""Keys of public layouts that say what a conversation means: they are read, or the row is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adaptkit_image.modality import ImageModality
from PIL import Image

from adaptkit.build import context_of
from adaptkit.chat.boxes import pad_box, parse_box
from adaptkit.errors import DataError
from adaptkit.interfaces import Sample
from adaptkit.plugin_manager import get_plugin_manager

SIZES = {"a.png": (64, 32), "b.png": (20, 40)}
LAYOUTS = ("messages", "llava", "sharegpt", "parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meaning")
    for name, size in SIZES.items():
        Image.new("RGB", size).save(folder / name)
    return folder


def row_of(layout: str, *turns: str, **keys: Any) -> dict[str, Any]:
    """A row whose turns are the user's and the assistant's by turns; `answer` goes into the last one."""
    answer = keys.pop("answer", {})
    names = ("user", "assistant") if layout == "messages" else ("human", "gpt")
    who, what, where = ("role", "content", "messages") if layout == "messages" else ("from", "value", "conversations")
    listed: list[dict[str, Any]] = [{who: names[i % 2], what: turn} for i, turn in enumerate(turns)]
    listed[-1] |= answer
    if layout in ("llava", "parquet") and "images" in keys:
        keys["image"] = keys.pop("images")
    return {where: listed, **keys}


def read(folder: Path, layout: str, row: dict[str, Any]) -> Sample:
    path = folder / "rows.json"
    if layout == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row]), path := folder / "rows.parquet")
    else:
        path.write_text(json.dumps([row]), encoding="utf-8")
    manager = get_plugin_manager()
    options = manager.options("data source", layout, {"path": str(path)})
    context = context_of({"image": ImageModality()}, folder)
    return manager.get("data source", layout).build(options, context)[0]


def texts(sample: Sample) -> list[str]:
    return ["".join(p["text"] for p in m["content"] if p["type"] == "text") for m in sample.messages]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("units", ["real", "norm1"])
def test_objects_stand_where_their_tags_are(folder: Path, layout: str, units: str) -> None:
    boxes = {"a.png": [8, 4, 40, 20], "b.png": [5, 10, 15, 30]}
    scale = {name: SIZES[name] * 2 if units == "norm1" else (1, 1, 1, 1) for name in boxes}
    objects = {
        "ref": ["a dog", "a cat"],
        "bbox": [[v / s for v, s in zip(boxes[name], scale[name])] for name in boxes],
        "bbox_type": units,
        "image_id": [0, 1],
    }
    row = row_of(
        layout, "<image><image>where is <ref-object> ?", "<bbox>, and <ref-object> at <bbox>", images=list(boxes),
        objects=objects,
    )  # fmt: skip
    question, answer = texts(read(folder, layout, row))
    assert question == "where is a dog ?"
    first, second = answer.split(", and a cat at ")
    for text, name in ((first, "a.png"), (second, "b.png")):
        assert parse_box(text) == pytest.approx(pad_box(boxes[name], *SIZES[name]), abs=6e-4)  # three decimals


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({"ref": ["x"], "bbox": []}, "0 under 'bbox'"),
        ({"ref": ["x"], "bbox": [[1, 2, 3, 4]] * 2}, "2 under 'bbox'"),
        ({"bbox": [[1, 2, 3, 4]]}, "0 under 'ref'"),
        ({"ref": ["x"], "bbox": [[100, 200, 300, 400]]}, "64 by 32 pixels"),
        ({"ref": ["x"], "bbox": [[9, 2, 3, 4]]}, "64 by 32 pixels"),
        ({"ref": ["x"], "bbox": [[1, 2, 3, 4]], "bbox_type": "norm1"}, "fractions"),
        ({"ref": ["x"], "bbox": [[1, 2]]}, "bbox"),
        ({"ref": ["x"], "bbox": [[1, 2, 3, 4]], "bbox_type": "norm1000"}, "bbox_type"),
        ({"ref": ["x"], "bbox": [[1, 2, 3, 4]], "image_id": [3]}, "medium 3"),
        ([{"caption": "x", "bbox": [1, 2, 3, 4]}], "'objects'"),
    ],
)
def test_objects_that_cannot_be_placed_are_refused(folder: Path, objects: Any, words: str) -> None:
    row = row_of("messages", "<image>where is <ref-object> ?", "<bbox>", images=["a.png"], objects=objects)
    with pytest.raises(DataError, match=words):
        read(folder, "messages", row)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "keys",
    [
        {"tools": [{"name": "search"}]},
        {"tools": '[{"name": "search"}]'},
        {"functions": [{"name": "search"}]},
        {"history": [["q", "a"]]},
        {"documents": [{"text": "x"}]},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"rejected_response": "no"},
        {"rejected": [{"role": "assistant", "content": "no"}]},
        {"label": False},
        {"kto_tag": False},
        {"bboxes": [[1, 2, 3, 4]]},
        {"video": "film.mp4"},
        {"audios": ["sound.wav"]},
        {"image_2": "b.png"},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_says_more_than_is_read_is_refused(folder: Path, layout: str, keys: dict[str, Any]) -> None:
    tag = "<bbox>" if "bboxes" in keys else ""
    good = row_of(layout, f"<image>who ?{tag}", "me", images=["a.png"])
    assert len(read(folder, layout, good).messages) == 2
    with pytest.raises(DataError, match=next(iter(keys))):
        read(folder, layout, {**good, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {"tools": []},
        {"tools": None},
        {"label": 3},
        {"objects": {"bbox": [[1, 2, 3, 4]]}},
        {"original_caption": "a dog", "url": "https://example.org/a.png"},
        {"image_url": "https://example.org/a.png", "image_id": 7},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_says_nothing_of_the_conversation_is_ignored(folder: Path, keys: dict[str, Any]) -> None:
    sample = read(folder, "llava", row_of("llava", "<image>who ?", "me", images=["a.png"], **keys))
    assert texts(sample) == ["who ?", "me"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_the_system_message_of_a_row_is_read(folder: Path, layout: str, key: str) -> None:
    sample = read(folder, layout, row_of(layout, "who ?", "me", **{key: "Be brief."}))
    assert (sample.messages[0]["role"], texts(sample)[0]) == ("system", "Be brief.")


def test_two_system_messages_are_refused(folder: Path) -> None:
    row = row_of("messages", "who ?", "me", system="Be brief.")
    row["messages"].insert(0, {"role": "system", "content": "Be long."})
    with pytest.raises(DataError, match="two system messages"):
        read(folder, "messages", row)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", ["weight", "loss", "train", "loss_scale"])
def test_answers_that_are_not_to_be_learned(folder: Path, layout: str, key: str) -> None:
    value: Any = 0 if key in ("weight", "loss_scale") else False
    assert read(folder, layout, row_of(layout, "q", "a", answer={key: value})).messages[-1].get("weight") == 0
    with pytest.raises(DataError, match=key):
        read(folder, layout, row_of(layout, "q", "a", answer={key: 0.5}))


@pytest.mark.parametrize(
    ("layout", "row", "words"),
    [
        ("llava", {"messages": [{"role": "user", "content": "q"}]}, "format messages"),
        ("llava", {"conversations": [{"role": "user", "content": "q"}]}, "format sharegpt"),
        ("sharegpt", {"conversations": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}, "'messages'"),
        ("messages", {"conversations": [{"from": "human", "value": "q"}]}, "sharegpt"),
        ("messages", {"messages": [{"from": "human", "value": "q"}]}, "'conversations'"),
        ("llava", {"conversation": [{"from": "human", "value": "q"}]}, "'conversation' meant"),
        ("llava", {"conversations": [{"from": "user", "value": "q"}]}, "format sharegpt"),
        ("llava", {"question": "q", "answer": "a"}, r"turns; the row has"),
        ("llava", {"instruction": "q", "output": "a"}, "format table"),
    ],
)
def test_advice_about_rows_of_another_layout_is_right(folder: Path, layout: str, row: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(folder, layout, row)
