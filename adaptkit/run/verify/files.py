"""Whether a checkpoint's folder holds what its card records, and nothing else that could be loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptkit.errors import inert
from adaptkit.files.loading import indexed_files
from adaptkit.model.card.facts import README_FILE, Card
from adaptkit.model.card.readme import SCORES, Readme, hash_of_generated, parse_readme
from adaptkit.model.card.recording import files_read, record_file
from adaptkit.model.card.rendering import render_card
from adaptkit.model.overwriting import TENSORS_FILE
from adaptkit.model.saving import ENCODERS_FOLDER
from adaptkit.run.verify.findings import DIFFERS, UNKNOWN, Finding, compared

_WEIGHTS = {".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".npz"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy"}
_CODE = {".py", ".pyc", ".so"}
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_MOST_LINES = 8


def all_files(folder: Path) -> dict[str, Path]:
    """Everything below a folder that is no folder, by its path from there."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def tensor_files(folder: Path) -> list[str]:
    """Files that hold the workflow's own tensors.

    Raises:
        ModelError: The index of several is damaged.
    """
    index = folder / f"{TENSORS_FILE}.index.json"
    return indexed_files(index) if index.exists() else [TENSORS_FILE]


def check_contents(folder: Path, card: Card | None) -> Iterator[Finding]:
    """Look for files that could be loaded and are none of the workflow's, and for links."""
    files = all_files(folder)
    own = {*tensor_files(folder)}
    recorded = set() if card is None else {*card.files}
    problems = [f"{name}: {problem}" for name, path in files.items() if (problem := _link_problem(path, folder))]
    for name, path in files.items():
        kind = path.suffix.lower()
        in_encoder = name.startswith(f"{ENCODERS_FOLDER}/") and (name in recorded or card is None)
        if kind in _PICKLES or _is_pickle(path):
            problems.append(f"{name}: a pickle, which could run code when it is loaded")
        elif kind in _CODE:
            problems.append(f"{name}: code")
        elif kind in _WEIGHTS and name not in own and not in_encoder:
            problems.append(f"{name}: weights that are none of the workflow's")
    yield compared("nothing else to load", problems, f"{len(files)} files: no other weights, pickles, code or links")


def _link_problem(path: Path, folder: Path) -> str | None:
    """What is wrong with a link; the hub's cache keeps contents apart, and names link to them."""
    if not path.is_symlink():
        return None
    target = path.resolve()
    snapshots = [parent for parent in folder.resolve().parents if parent.name == "snapshots"]
    if any(target.is_relative_to(parent.parent / "blobs") for parent in snapshots):
        return None
    return "a link" if target.exists() else "a link to nothing"


def _is_pickle(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(2048)
    return start.startswith(_PICKLE_STARTS) or (start.startswith(b"PK\x03\x04") and b"data.pkl" in start)


def check_recorded_files(folder: Path, card: Card) -> Iterator[Finding]:
    """Compare configuration, tokenizer and the like with their hashes in the card."""
    problems: list[str] = []
    for name, expected in card.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        else:
            problems += _changed_keys(name, expected, record_file(path))
    added = [name for name in files_read(folder) if name not in card.files]
    has_processor = any(name.startswith(("processor_config", "tokenizer")) for name in card.files)
    if has_processor:
        problems += [f"{name}: added" for name in added]
    yield compared("settings and tokenizer", problems, f"{len(card.files)} files, key by key")
    if added and not has_processor:
        why = "not recorded: the processor was not saved into this folder after the workflow"
        yield Finding("tokenizer and processor", UNKNOWN, [f"{', '.join(added)}: {why}"])


def _changed_keys(name: str, expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    changed = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    words = {key: "removed" if key not in found else "added" if key not in expected else "changed" for key in changed}
    if not changed or "" in changed:
        return [f"{name}: changed"] if changed else []
    return [f"{name}: {key}: {word}" for key, word in words.items()]


# -- README ------------------------------------------------------------------------------------------------------------


def check_readme(folder: Path, config: Mapping[str, Any], card: Card, is_current: bool) -> Iterator[Finding]:
    """Compare what the README claims with what the facts and the config make of it.

    Args:
        is_current: Whether this version of adaptkit and of the plugins wrote it, and would write the same again.
    """
    path = folder / README_FILE
    if not path.is_file():
        yield Finding(README_FILE, DIFFERS, ["missing"])
        return
    readme, expected = parse_readme(path.read_text(encoding="utf-8-sig"), path), render_card(config, card)
    problems = list(_changed_metadata(readme, expected))
    if is_current:
        problems += _changed_lines(readme.generated or "", expected.generated or "")
    elif card.text_sha256 != hash_of_generated(readme):
        problems.append(f"the text is not the one that adaptkit {card.adaptkit_version} wrote")
    yield compared(README_FILE, problems, "metadata and text say what the facts say")
    if "base_model" in readme.metadata and "base_model" not in expected.metadata:
        named = inert(readme.metadata["base_model"])
        yield Finding("base_model", UNKNOWN, [f"{named} is named by hand; the checkpoint names no model of the hub"])


def _changed_metadata(readme: Readme, expected: Readme) -> Iterator[str]:
    said, known = (_results(part.metadata.get(SCORES)) for part in (readme, expected))
    for place in dict.fromkeys([*known, *said]):
        if said.get(place) != known.get(place):
            yield f"metadata {place}: {_shown(said.get(place))} instead of {_shown(known.get(place))}"
    for key in expected.metadata.keys() - {SCORES}:
        ours, theirs = expected.metadata.get(key), readme.metadata.get(key)
        if isinstance(ours, list) and isinstance(theirs, list):
            yield from (f"metadata {key}: {inert(item)} is missing" for item in ours if item not in theirs)
        elif ours != theirs:
            yield f"metadata {key}: {_shown(theirs)} instead of {_shown(ours)}"


def _results(values: Any, place: str = SCORES) -> dict[str, Any]:
    """Values of a tree of results, by their places."""
    if isinstance(values, Mapping):
        return {k: v for key, value in values.items() for k, v in _results(value, f"{place}.{key}").items()}
    if isinstance(values, list):
        return {k: v for index, value in enumerate(values) for k, v in _results(value, f"{place}[{index}]").items()}
    return {} if values is None else {inert(place): values}


def _shown(value: Any) -> str:
    return "nothing" if value is None else inert(value)[:200]


def _changed_lines(found: str, expected: str) -> list[str]:
    differences = difflib.unified_diff(expected.splitlines(), found.splitlines(), "", "", n=0, lineterm="")
    lines = [line for line in differences if not line.startswith(("---", "+++", "@@"))]
    words = {"+": "added", "-": "missing"}
    shown = [f"line {words[line[0]]}: {inert(line[1:])[:300]}" for line in lines if line[1:].strip()]
    more = [f"and {len(shown) - _MOST_LINES} more lines"] if len(shown) > _MOST_LINES else []
    return shown[:_MOST_LINES] + more
