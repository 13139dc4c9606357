"""A base and its workflows as stock checkpoints side by side, for engines that serve these."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from adaptkit import __version__
from adaptkit.errors import ModelError
from adaptkit.export.compatibility import llava_problems
from adaptkit.export.llava import export_llava
from adaptkit.export.output import ExportReport, written_whole
from adaptkit.export.speech import export_speech
from adaptkit.export.speech_compatibility import speech_problems
from adaptkit.export.stock import valid_settings
from adaptkit.files.loading import read_json
from adaptkit.files.writing import write_json
from adaptkit.model.checkpoint import load_base, load_config, load_models
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor, load_processor

STAMP = "adaptkit_export.json"
_QWEN2_AUDIO = "qwen2-audio"
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class StockFolder:
    """A stock checkpoint that stands for a workflow, or for the base.

    Attributes:
        directory: Where it lies.
        placeholder: The text that stands for a medium in its prompts; None for the base.
        reused: Whether it was there already.
    """

    directory: Path
    placeholder: str | None = None
    reused: bool = False


def export_together(
    folders: Mapping[str, Path], directory: Path, *, base_name: str, trust_remote_code: bool = False
) -> dict[str, StockFolder]:
    """Write workflows over one base, and the base, as stock checkpoints; what is there and up to date is kept.

    Low-rank differences are folded into the weights. Before anything is written, every workflow is examined.

    Args:
        folders: Of the workflows, by name.
        directory: Gets a folder for each of them, by its name.
        base_name: The base's name among them.
        trust_remote_code: Whether code that comes with a checkpoint may be run.

    Raises:
        ModelError: Some of the workflows have no stock equal; the message names each, and why. Or they are over
            different bases, or another program's files are where they should be.
    """
    _check_one_base(folders)
    first = next(iter(folders.values()))
    marks = {name: _fingerprint(folder, folder.rglob("*")) for name, folder in folders.items()}
    words = [path for path in first.glob("*") if path.suffix != ".safetensors" and path.name != "config.json"]
    marks = {base_name: _fingerprint(first, words, load_config(first).base), **marks}
    found = {name: _there(directory / name, mark) for name, mark in marks.items()}
    stale = {name: folder for name, folder in folders.items() if found[name] is None}
    models = dict(load_models(stale, trust_remote_code=trust_remote_code))
    _refuse(models)
    if found[base_name] is None:
        base = next((model.base for model in models.values()), None)
        base = base if base is not None else load_base(first, trust_remote_code=trust_remote_code)
        processor = load_processor(first, trust_remote_code=trust_remote_code)
        found[base_name] = _write_base(base, processor, directory / base_name, marks[base_name])
    for name, model in models.items():
        processor = load_processor(folders[name], trust_remote_code=trust_remote_code)
        found[name] = _write(model, processor, directory / name, marks[name])
    return {name: folder for name, folder in found.items() if folder is not None}


# -- what can be exported --------------------------------------------------------------------------------------------


def _refuse(models: Mapping[str, AdaptkitForConditionalGeneration]) -> None:
    problems = {name: _problems(model) for name, model in models.items()}
    reasons = [f"workflow {name!r}: {' Also: '.join(found)}" for name, found in problems.items() if found]
    if reasons:
        raise ModelError(
            f"stock engines have no model for {' And '.join(reasons)} Serve those with adaptkit's own engine, or name "
            "the folders of the others alone."
        )


def _problems(model: AdaptkitForConditionalGeneration) -> list[str]:
    if _hears(model):
        return speech_problems(model, _QWEN2_AUDIO, merge=True)
    return llava_problems(model, merge=True)


def _hears(model: AdaptkitForConditionalGeneration) -> bool:
    configs: list[Any] = [getattr(getattr(e, "model", None), "config", None) for e in model.encoders.values()]
    return len(configs) == 1 and getattr(configs[0], "model_type", None) == "whisper"


def _check_one_base(folders: Mapping[str, Path]) -> None:
    bases = {name: load_config(folder).base.get("content_hash") for name, folder in folders.items()}
    first = next(iter(bases))
    for name, base in bases.items():
        if base != bases[first]:
            raise ModelError(f"workflow {name!r} is on another base than {first!r}. Serve them apart.")


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(
    model: AdaptkitForConditionalGeneration, processor: AdaptkitProcessor, directory: Path, mark: str
) -> StockFolder:
    _clear(directory)
    report: ExportReport
    if _hears(model):
        report = export_speech(model, processor, directory, _QWEN2_AUDIO, merge=True)
    else:
        report = export_llava(model, processor, directory, merge=True)
    write_json(directory / STAMP, {"fingerprint": mark, "placeholder": report.placeholder})
    return StockFolder(directory, report.placeholder)


def _write_base(base: PreTrainedModel, processor: AdaptkitProcessor, directory: Path, mark: str) -> StockFolder:
    _clear(directory)
    own = base.generation_config
    try:
        base.generation_config, _ = valid_settings(own)  # transformers refuses to save others
        with written_whole(directory) as folder:
            base.save_pretrained(folder)
            processor.tokenizer.save_pretrained(folder)
            write_json(folder / STAMP, {"fingerprint": mark, "placeholder": None})
    finally:
        base.generation_config = own
    return StockFolder(directory)


def _clear(directory: Path) -> None:
    """Remove what an earlier export wrote; of anything else `written_whole` says that it is in the way."""
    if (directory / STAMP).is_file():
        shutil.rmtree(directory)


# -- what is there ---------------------------------------------------------------------------------------------------


def _there(directory: Path, mark: str) -> StockFolder | None:
    stamp = directory / STAMP
    values = read_json(stamp) if stamp.is_file() else {}
    if values.get("fingerprint") != mark:
        return None
    return StockFolder(directory, values.get("placeholder"), reused=True)


def _fingerprint(folder: Path, files: Iterable[Path], *values: Any) -> str:
    """Changes with the content of the files, their names, and the version that exports them."""
    digest = hashlib.sha256(json.dumps([__version__, *values], sort_keys=True).encode())
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
