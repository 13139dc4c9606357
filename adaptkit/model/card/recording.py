"""Hashes of what a checkpoint consists of, by which a later look tells what has been changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from adaptkit.files.hashing import hash_tensors
from adaptkit.model.card.facts import CARD_FILE, README_FILE, read_card, write_facts
from adaptkit.model.overwriting import TENSORS_FILE

_WHOLE = ""
OF_PROCESSORS = (
    *("tokenizer", "processor_config", "preprocessor_config", "chat_template", "special_tokens_map"),
    *("added_tokens", "vocab", "merges", "spiece", "sentencepiece"),
)
"""How names of a processor's files begin."""

_READ = (*OF_PROCESSORS, "config.json", "generation_config")
"""How names of files begin that loading a workflow and its processor reads, where they are there."""


def record_tensors(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """For each tensor its dtype, shape and a hash of its bits."""
    named = dict(tensors)
    with ThreadPoolExecutor(max_workers=4) as executor:  # each hashes pieces in threads of its own
        return dict(zip(sorted(named), executor.map(lambda name: _record(named[name]), sorted(named))))


def _record(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} {list(tensor.shape)} {hash_tensors([(_WHOLE, tensor)])}"


def hash_of(records: Mapping[str, str]) -> str:
    """One hash of all tensors, by their records."""
    return hashlib.sha256(json.dumps(dict(records), sort_keys=True).encode()).hexdigest()


def record_file(path: Path) -> dict[str, str]:
    """Hashes of a file: of each key where it is a JSON object, so that a difference has a name, else of its bytes."""
    content = path.read_bytes()
    try:
        values = json.loads(content) if path.suffix == ".json" else None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return {_WHOLE: hashlib.sha256(content).hexdigest()}
    return {key: hashlib.sha256(_canonical(value)).hexdigest()[:32] for key, value in sorted(values.items())}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")


def record_files(folder: Path) -> dict[str, dict[str, str]]:
    """Hashes of all files below a folder, except the card, the workflow's own tensors and hidden ones."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: record_file(path) for name, path in names.items() if not _is_apart(name)}


def files_read(folder: Path) -> list[str]:
    """Files of a folder that loading reads, or would."""
    return sorted(path.name for path in folder.glob("*") if path.name.startswith(_READ) and path.is_file())


def _is_apart(name: str) -> bool:
    own = name.startswith(("model-", TENSORS_FILE))
    return name in (CARD_FILE, README_FILE) or name.startswith(".") or (own and "/" not in name)


def record_written(directory: Path, folder: Path) -> None:
    """Add the files of a folder to the card of the checkpoint that they go to, where that has one."""
    card = read_card(directory)
    if card is not None:
        write_facts(card.model_copy(update={"files": {**card.files, **record_files(folder)}}), folder)
