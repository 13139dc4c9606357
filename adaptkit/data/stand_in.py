"""Conversations written in each format, for rehearsals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.interfaces import Message, Sample

SPEAKERS = {"user": "human", "assistant": "gpt"}


def write_llava(path: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Path:
    """Write a LLaVA file; media are named as they are in the samples.

    Args:
        path: The JSON file; its folder is made.
        samples: What to write.
        tags: Tag of each modality.
    """
    rows = [_with_turns(sample, tags) | _media_of(sample.messages) for sample in samples]
    return _write(path, json.dumps(rows, indent=0, ensure_ascii=False))


def write_sharegpt(path: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Path:
    """Write a ShareGPT file, JSON Lines; arguments as in `write_llava`."""
    media = [{f"{name}s": paths for name, paths in _media_of(sample.messages).items()} for sample in samples]
    return _write_lines(path, [_with_turns(sample, tags) | more for sample, more in zip(samples, media)])


def write_messages(path: Path, samples: Sequence[Sample]) -> Path:
    """Write OpenAI's chat messages, JSON Lines."""
    return _write_lines(
        path,
        [
            {"id": sample.id, "messages": [{**m, "content": [_part(p) for p in m["content"]]} for m in sample.messages]}
            for sample in samples
        ],
    )


def write_table(path: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Path:
    """Write the first question and answer of each conversation as a row of `question`, `answer` and media by modality.

    Args:
        path: The `.jsonl` file; its folder is made.
        samples: What to write.
        tags: Tag of each modality.
    """
    rows = []
    for sample in samples:
        question, answer = sample.messages[:2]
        values = {"id": sample.id, "question": _tagged(question, tags), "answer": _tagged(answer, tags)}
        rows.append(values | _media_of([question]))
    return _write_lines(path, rows)


def _with_turns(sample: Sample, tags: Mapping[str, str]) -> dict[str, Any]:
    turns = [{"from": SPEAKERS[m["role"]], "value": _tagged(m, tags)} for m in sample.messages]
    return {"id": sample.id, "conversations": turns}


def _tagged(message: Message, tags: Mapping[str, str]) -> str:
    return "".join(part["text"] if part["type"] == "text" else tags[part["type"]] for part in message["content"])


def _media_of(messages: Sequence[Message]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in (part for message in messages for part in message["content"] if part["type"] != "text"):
        found.setdefault(part["type"], []).append(str(part[part["type"]]))
    return found


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    return dict(part) if kind == "text" else {"type": f"{kind}_url", f"{kind}_url": {"url": str(part[kind])}}


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
