"""Published samples of every format through real tokenizers: what is learned is what the assistant says."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from adaptkit.chat.encoding import IGNORE_INDEX, EncodedConversation, encode_conversation, label_segments, truncate
from adaptkit.data.formats.stand_in import row_of, write_dataset, write_parquet, write_shard
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, Sample
from adaptkit.plugin_manager import get_plugin_manager

TAGS = {"image": "<image>", "audio": "<audio>"}
FILES = {
    "llava_conversations.json": "llava",
    "allava.json": "llava",
    "sharegpt.jsonl": "sharegpt",
    "openai_messages.jsonl": "messages",
}
ENDS = {"llama3": "<|eot_id|>", "qwen2": "<|im_end|>"}
PLACEHOLDERS = {"image": 10**6, "audio": 10**6 + 1}
NUM_POSITIONS = 7


@pytest.fixture(scope="module")
def tokenizers(shared: Path) -> dict[str, Any]:
    return {name: AutoTokenizer.from_pretrained(shared / "data/tokenizers" / name) for name in ENDS}


@pytest.fixture
def samples(shared: Path) -> list[Sample]:
    folder = shared / "data/formats"
    context = DataContext(folder.parent, TAGS, folder)
    build = get_plugin_manager().build
    sources = [build("data source", name, {"path": str(folder / path)}, context) for path, name in FILES.items()]
    return [source[i] for source in sources for i in range(len(source))]


def encode(tokenizer: Any, sample: Sample) -> EncodedConversation:
    return encode_conversation(
        tokenizer, sample.messages, placeholder_ids=PLACEHOLDERS, num_positions=lambda *_: NUM_POSITIONS
    )


@pytest.mark.parametrize("name", ENDS)
def test_assistant_turns_alone_are_labelled(tokenizers, samples, name):
    for sample in samples:
        encoded = encode(tokenizers[name], sample)
        learned = [text for text, labelled in label_segments(tokenizers[name], encoded) if labelled]
        said = ["".join(p["text"] for p in m["content"]) for m in sample.messages if m["role"] == "assistant"]
        assert learned == [(text.strip() if name == "llama3" else text) + ENDS[name] for text in said]
        media = [part["type"] for m in sample.messages for part in m["content"] if part["type"] != "text"]
        assert [kind for kind, _ in encoded.media] == media
        for (start, stop), kind in zip(encoded.media_spans, media):
            assert encoded.input_ids[start:stop] == [PLACEHOLDERS[kind]] * NUM_POSITIONS
            assert set(encoded.labels[start:stop]) == {IGNORE_INDEX}


@pytest.mark.parametrize("name", ENDS)
def test_truncation_keeps_whole_media(tokenizers, samples, name):
    for sample in (sample for sample in samples if encode(tokenizers[name], sample).media):
        encoded = encode(tokenizers[name], sample)
        for max_length in range(1, len(encoded.input_ids) + 1):
            try:
                short = truncate(encoded, max_length)
            except DataError:
                assert all(label == IGNORE_INDEX for label in encoded.labels[:max_length])
                continue
            assert len(short.input_ids) <= max_length
            for kind, placeholder in PLACEHOLDERS.items():
                kept = [modality for modality, _ in short.media]
                assert short.input_ids.count(placeholder) == NUM_POSITIONS * kept.count(kind)


def test_published_samples_round_trip_through_every_container(samples, tmp_path):
    """Each is written in the containers' own way, and read again as what it was."""
    for name, read in read_again(samples, tmp_path).items():
        assert len(read) == len(samples)
        for sample, again in zip(samples, read):
            assert spoken(again) == spoken(sample), f"{name}: {sample.location}"


def read_again(samples: list[Sample], folder: Path) -> dict[str, list[Sample]]:
    context = DataContext(folder, TAGS, folder / "cache")
    rows = [row_of("messages", sample, TAGS, lambda source: {"bytes": content(source)}) for sample in samples]
    paths = {
        "parquet": write_parquet(folder / "rows.parquet", rows),
        "hf_dataset": write_dataset(folder / "dataset", rows),
        "webdataset": write_shard(folder / "shard.tar", [group(i, sample) for i, sample in enumerate(samples)]),
    }
    sources = {
        name: get_plugin_manager().build("data source", name, {"path": str(p)}, context) for name, p in paths.items()
    }
    order = random.Random(0).sample(range(len(samples)), len(samples))
    read = {name: {i: source[i] for i in order} for name, source in sources.items()}
    return {name: [found[i] for i in range(len(samples))] for name, found in read.items()}


def group(number: int, sample: Sample) -> tuple[str, dict[str, bytes]]:
    members: dict[str, bytes] = {}

    def medium(source: Any) -> str:
        members[f"{len(members)}.bin"] = content(source)
        return f"{len(members) - 1}.bin"

    row = row_of("messages", sample, TAGS, medium)
    return f"{number:04d}", {**members, "json": json.dumps(row).encode()}


def content(source: Any) -> bytes:
    """What a path, a data URI or an embedded medium holds."""
    if isinstance(source, str):
        return base64.b64decode(source.partition(",")[2])
    return source.read_bytes() if isinstance(source, Path) else source.read()


def spoken(sample: Sample) -> list[Any]:
    return [
        (m["role"], [p["text"] if p["type"] == "text" else (p["type"], content(p[p["type"]])) for p in m["content"]])
        for m in sample.messages
    ]
