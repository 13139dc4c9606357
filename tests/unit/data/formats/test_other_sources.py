"""The readers of ShareGPT files and of OpenAI's chat messages."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from adaptkit.chat.encoding import encode_conversation, label_segments
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.run.rehearsal import sample_conversations
from adaptkit.testing import tiny_tokenizer

TAGS = {"image": "<image>", "audio": "<audio>"}
SHARED = Path(os.environ.get("ADAPTKIT_SHARED", "../shared")) / "data" / "formats"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def source(name: str, path: Path, **options: Any) -> Any:
    manager = get_plugin_manager()
    context = DataContext(path.parent, TAGS, path.parent)
    return manager.get("data source", name).build(
        manager.options("data source", name, {"path": str(path), **options}), context
    )


def shown(sample: Any) -> list[tuple[str, list[Any]]]:
    def show(part: Any) -> Any:
        value = part[part["type"]]
        return value.name if isinstance(value, Path) else value

    return [(m["role"], [show(part) for part in m["content"]]) for m in sample.messages]


def turns(*values: str, speakers: tuple[str, str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": speakers[i % 2], "value": value} for i, value in enumerate(values)]


@pytest.mark.parametrize("speakers", [("human", "gpt"), ("user", "assistant")])
def test_sharegpt_speakers(folder, speakers):
    path = write(folder, {"conversations": turns("<image>How many?", "Two.", speakers=speakers), "images": ["a.png"]})
    assert shown(source("sharegpt", path)[0]) == [("user", ["a.png", "How many?"]), ("assistant", ["Two."])]


@pytest.mark.parametrize(
    ("row", "system"),
    [
        ({"system": "Be kind."}, "Be kind."),
        ({"conversations": [{"from": "system", "value": "Be terse."}, *turns("Q", "A")]}, "Be terse."),
        ({}, "Default."),
        ({"system": ""}, "Default."),
    ],
)
def test_sharegpt_system_messages(folder, row, system):
    path = write(folder, {"conversations": turns("Q", "A"), **row})
    roles = shown(source("sharegpt", path, system="Default.")[0])
    assert roles[0] == (("system", [system]) if system else ("user", ["Q"]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": turns("<image>Q", "A")}, "0 under 'images', but 1 <image>"),
        ({"conversations": turns("Q", "A"), "images": ["a.png"]}, "1 under 'images', but 0 <image>"),
        ({"conversations": turns("Q", "A"), "system": 7}, "the system message must be text, not int"),
        ({"conversations": turns("Q", "A", speakers=("human", "bot"))}, "no speaker named 'bot'"),
        ({"conversations": []}, "must be a list of turns"),
    ],
)
def test_bad_sharegpt_rows(folder, row, message):
    with pytest.raises(DataError, match=message):
        source("sharegpt", write(folder, row))[0]


def test_parts_of_messages_keep_their_order(folder):
    data = base64.b64encode(b"RIFF").decode()
    content = [
        {"type": "text", "text": "First "},
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": " ?"},
    ]
    messages = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Yes."},
    ]
    assert shown(source("messages", write(folder, {"messages": messages}))[0]) == [
        ("system", ["S"]),
        ("user", ["First ", "a.png", f"data:audio/wav;base64,{data}", "data:image/png;base64,AAAA", " ?"]),
        ("assistant", ["Yes."]),
    ]


def said(*contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "x"}, "an object with a list of 'messages'"),
        (7, "a row is an object with keys, not int"),
        (said("Q"), "no question with an answer"),
        (said("Q", " "), "turn 1: the answer is empty"),
        (said(7, "A"), "content is int, not text or a list"),
        (said([{"type": "video_url", "video_url": "v"}], "A"), "message 0, part 0: no part type named 'video_url'"),
        (said([{"type": "text"}], "A"), "a text part holds NoneType"),
        (said(["text"], "A"), "a part is an object with a 'type'"),
        (said([{"type": "image_url", "image_url": {}}], "A"), "holds neither 'url' nor 'data'"),
        (said([{"type": "image_url", "image_url": "https://x/y.png"}], "A"), "is not fetched. Download it"),
        (said([{"type": "image_url", "image_url": "gone.png"}], "A"), "'image' is missing: no file"),
        (said("Q", [{"type": "image_url", "image_url": "a.png"}]), "media stand in the user's messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "no role named 'tool'"),
    ],
)
def test_bad_messages(folder, row, message):
    with pytest.raises(DataError, match=message):
        source("messages", write(folder, row))[0]


@pytest.mark.parametrize("name", ["sharegpt", "messages"])
def test_stand_ins_can_be_read(folder, name):
    manager = get_plugin_manager()
    component = manager.get("data source", name)
    samples = sample_conversations({"image": [folder / "a.png", folder / "b.png"], "audio": [folder / "a.wav"]}, 8)
    options = component.stand_in(
        manager.options("data source", name, {"path": "/gone", "limit": 1}), folder / "stand_in", samples, TAGS
    )
    read = component.build(options, DataContext(folder, TAGS, folder))
    assert [read[i].messages for i in range(len(read))] == [sample.messages for sample in samples]


@pytest.mark.parametrize("name", ["sharegpt", "messages"])
def test_shared_samples_are_read(name):
    path = SHARED / {"sharegpt": "sharegpt.jsonl", "messages": "openai_messages.jsonl"}[name]
    if not path.is_file():
        pytest.skip(f"no format samples at {path}: set ADAPTKIT_SHARED")
    read = source(name, path.resolve(), media_roots=["../images"])
    assert all(read[i].messages[-1]["role"] == "assistant" for i in range(len(read)))


def test_sharegpt_media_may_stand_under_the_modality_s_name(folder):
    path = write(folder, {"system": "S", "conversations": turns("<image>Q", "A"), "image": "a.png"})
    assert shown(source("sharegpt", path)[0])[1] == ("user", ["a.png", "Q"])


def chat(question: Any, **keys: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "A"}], **keys}


def test_tags_in_messages_stand_for_media_that_the_row_lists(folder):
    path = write(folder, chat("<image>Who and <image>?", images=["a.png", "b.png"]))
    assert shown(source("messages", path)[0])[0] == ("user", ["a.png", "Who and ", "b.png", "?"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (chat("Who?", images=["a.png"]), "the row lists more 'image' than its messages have parts or tags"),
        (chat([{"type": "text", "text": "Who?"}], image="a.png"), "the row lists more 'image'"),
        (chat("<image>Who?"), "none left under 'images' or 'image'"),
        (chat("<image>Who?", images=["gone.png"]), "no file"),
    ],
)
def test_media_without_parts_and_tags_without_media_are_errors(folder, row, said):
    with pytest.raises(DataError, match=said):
        source("messages", write(folder, row))[0]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image", "path": "a.png", "text": None},
        {"type": "image", "image": None, "url": None, "path": "a.png"},
        {"type": "input_image", "image_url": "a.png"},
        {"type": "image", "source": {"type": "url", "url": "a.png"}},
    ],
)
def test_a_picture_s_place_stands_where_others_write_it(folder, part):
    row = chat([part, {"type": "input_text", "text": "Who?"}])
    assert shown(source("messages", write(folder, row))[0])[0] == ("user", ["a.png", "Who?"])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image", "base64": "QUFB"}, "data:image/x-unknown;base64,QUFB"),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUFB"}},
            "data:image/png;base64,QUFB",
        ),
    ],
)
def test_base64_of_other_layouts(folder, part, expected):
    assert shown(source("messages", write(folder, chat([part])))[0])[0] == ("user", [expected])


def test_a_part_may_name_a_listed_picture_by_its_number(folder):
    parts = [{"type": "image", "index": 1}, {"type": "text", "text": "after"}, {"type": "image", "index": 0}]
    read = shown(source("messages", write(folder, chat(parts, images=["a.png", "b.png"])))[0])
    assert read[0] == ("user", ["b.png", "after", "a.png"])
    wrong = chat([{"type": "image", "index": 2}], images=["a.png", "b.png"])
    with pytest.raises(DataError, match="no image of index 2: the row lists 2"):
        source("messages", write(folder, wrong))[0]


def test_media_of_a_message_stand_before_its_text(folder):
    row = chat("Who?")
    row["messages"][0]["images"] = ["a.png", "b.png"]
    assert shown(source("messages", write(folder, row))[0])[0] == ("user", ["a.png", "b.png", "Who?"])
    row["messages"][0]["content"] = "First <image> ?"
    assert shown(source("messages", write(folder, row))[0])[0] == ("user", ["b.png", "First ", "a.png", " ?"])
    row["messages"][1]["images"] = ["a.png"]
    with pytest.raises(DataError, match=r"message .*media.*assistant"):
        source("messages", write(folder, row))[0]


def test_an_answer_of_weight_0_is_read_and_not_learned(folder):
    row = said("Q", "bad", "again", "good", "and", "fine")
    row["messages"][1]["weight"], row["messages"][3]["weight"] = 0, 1
    sample = source("messages", write(folder, row))[0]
    tokenizer = tiny_tokenizer()
    encoded = encode_conversation(tokenizer, sample.messages, placeholder_ids={}, num_positions=lambda *_: 1)
    learned = [text for text, labelled in label_segments(tokenizer, encoded) if labelled]
    assert [text.partition("<")[0] for text in learned] == ["good", "fine"]
    without = [{**message, "weight": 1} for message in sample.messages]
    again = encode_conversation(tokenizer, without, placeholder_ids={}, num_positions=lambda *_: 1)
    assert again.input_ids == encoded.input_ids


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight": 0.5}, r"message 1: its weight is 0\.5; it may be 0 or 1"),
        ({"tool_calls": [{"type": "function"}]}, "message 1 calls tools"),
        ({"tool_calls": [{"type": "function"}], "content": None}, "message 1 calls tools"),
    ],
)
def test_what_of_an_answer_is_not_learned_is_an_error(folder, keys, message):
    row = chat("Q")
    row["messages"][1] |= keys
    with pytest.raises(DataError, match=message):
        source("messages", write(folder, row))[0]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "name", "refusal"])
def test_what_a_message_says_beside_its_content_reaches_the_template(folder: Path, key: str) -> None:
    """Which renders it, or the sample is refused, in whatever layout it stands."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", key: "because", "id": 7}]
    sample = source("messages", write(folder, {"messages": messages}))[0]
    assert sample.messages[1][key] == "because"
    assert "id" not in sample.messages[1]
    with pytest.raises(DataError, match=f"message 1 has '{key}'"):
        encode_conversation(tiny_tokenizer(), sample.messages, placeholder_ids={}, num_positions=lambda *_: 1)
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", key: "because"}]
    assert source("sharegpt", write(folder, {"conversations": turns}))[0].messages[1][key] == "because"
