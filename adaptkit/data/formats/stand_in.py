"""Conversations written in each format, for rehearsals and for trials of readers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.interfaces import Message, Sample

SPEAKERS = {"user": "human", "assistant": "gpt"}

Row = dict[str, Any]
WriteMedium = Callable[[Any], Any]


def rows_of(
    layout: str, samples: Sequence[Sample], tags: Mapping[str, str], medium: WriteMedium = str
) -> list[dict[str, Any]]:
    """Samples as rows of a layout.

    Args:
        layout: Name of the layout. A table has the first question and answer of each conversation, as `question` and
            `answer`.
        medium: What stands in a row for a medium.
    """
    return [row_of(layout, sample, tags, medium) for sample in samples]


def row_of(layout: str, sample: Sample, tags: Mapping[str, str], medium: WriteMedium = str) -> Row:
    """One sample as a row; arguments as in `rows_of`."""
    if layout == "messages":
        messages = [{**m, "content": [_part(p, medium) for p in m["content"]]} for m in sample.messages]
        return {"id": sample.id, "messages": messages}
    if layout == "table":
        question, answer = sample.messages[:2]
        values = {"id": sample.id, "question": _tagged(question, tags), "answer": _tagged(answer, tags)}
        return values | _media_of([question], medium)
    turns = [{"from": SPEAKERS[m["role"]], "value": _tagged(m, tags)} for m in sample.messages]
    media = _media_of(sample.messages, medium)
    if layout == "sharegpt":
        media = {f"{name}s": found for name, found in media.items()}
    return {"id": sample.id, "conversations": turns, **media}


def folders_of(samples: Sequence[Sample]) -> list[str]:
    """The folders in which the media of samples lie."""
    parts = (part for sample in samples for message in sample.messages for part in message["content"])
    return sorted({str(Path(part[part["type"]]).absolute().parent) for part in parts if part["type"] != "text"})


def write_json(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a JSON list, or as JSON Lines where the file is a `.jsonl`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = json.dumps(rows, indent=0, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def embedded(source: Any) -> dict[str, Any]:
    """A medium as Hugging Face datasets store it, content and name."""
    path = Path(source)
    return {"bytes": path.read_bytes(), "path": path.name}


def write_parquet(path: Path, rows: Sequence[Row], row_group_size: int = 8) -> Path:
    """Write rows as a parquet file; its folder is made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(with_all_keys(rows)), path, row_group_size=row_group_size)
    return path


def write_dataset(folder: Path, rows: Sequence[Row]) -> Path:
    """Write rows as `datasets` saves them to disk."""
    import pyarrow as pa

    return save_table(folder, pa.Table.from_pylist(with_all_keys(rows)))


def save_table(folder: Path, table: Any) -> Path:
    """Write an Arrow table as `datasets` saves it to disk, without its progress bars."""
    import datasets

    watched = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(table, fingerprint="stand_in").save_to_disk(str(folder), num_shards=1)
    finally:
        if watched:
            datasets.enable_progress_bars()
    return folder


def with_all_keys(rows: Sequence[Row]) -> list[Row]:
    """Rows with the keys of all of them: Arrow looks at the first one only."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def write_shard(path: Path, groups: Sequence[tuple[str, Mapping[str, bytes]]]) -> Path:
    """Write a webdataset shard; its folder is made.

    Args:
        groups: Key of each sample, and the content of its members by ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, members in groups:
            for ending, content in members.items():
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return path


def group_of(layout: str, sample: Sample, tags: Mapping[str, str]) -> dict[str, bytes]:
    """The members of a sample by ending, media beside the row that names them."""
    members: dict[str, bytes] = {}

    def medium(source: Any) -> str:
        path = Path(source)
        ending = f"{len(members)}{path.suffix}"
        members[ending] = path.read_bytes()
        return ending

    row = row_of(layout, sample, tags, medium)
    return {"json": json.dumps(row).encode(), **members}


def _tagged(message: Message, tags: Mapping[str, str]) -> str:
    return "".join(part["text"] if part["type"] == "text" else tags[part["type"]] for part in message["content"])


def _media_of(messages: Sequence[Message], medium: WriteMedium) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for part in (part for message in messages for part in message["content"] if part["type"] != "text"):
        found.setdefault(part["type"], []).append(medium(part[part["type"]]))
    return found


def _part(part: Mapping[str, Any], medium: WriteMedium) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return dict(part)
    written = medium(part[kind])
    if isinstance(written, str):
        return {"type": f"{kind}_url", f"{kind}_url": {"url": written}}
    return {"type": kind, kind: written}
