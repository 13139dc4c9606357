"""Conversations written as a table, for rehearsals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.interfaces import Sample


def write_table(path: Path, samples: Sequence[Sample], tags: Mapping[str, str]) -> Path:
    """Write the first question and answer of each conversation as a row of `question`, `answer` and media by modality.

    Args:
        path: The `.jsonl` file; its folder is made.
        samples: What to write.
        tags: Tag of each modality.
    """
    rows = []
    for sample in samples:
        question, answer = ([*message["content"]] for message in sample.messages[:2])
        row: dict[str, Any] = {
            "id": sample.id,
            "question": "".join(part["text"] if part["type"] == "text" else tags[part["type"]] for part in question),
            "answer": answer[0]["text"],
        }
        for part in question:
            if part["type"] != "text":
                row.setdefault(part["type"], []).append(str(part[part["type"]]))
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
