"""Data files without a recipe, to be checked as far as they tell how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from adaptkit.build import context_of
from adaptkit.chat.shipped import load_chat_template
from adaptkit.chat.vocabulary import check_vocabulary
from adaptkit.data.formats.hf_dataset import is_saved_dataset
from adaptkit.data.formats.layouts import layout_of
from adaptkit.data.formats.table import COMPRESSED
from adaptkit.data.media import shown
from adaptkit.data.row_index import load_rows
from adaptkit.data_tools.check.findings import Problem
from adaptkit.data_tools.check.plan import (
    CONTENT,
    LENGTHS,
    WORDS,
    CheckedDataset,
    CheckedMedia,
    OnlyRead,
    Plan,
    embedding_rows,
    open_tokenizer,
)
from adaptkit.errors import DataError, RecipeError, first_few, nearest_name
from adaptkit.files.paths import resolve_model_path
from adaptkit.interfaces import DataContext, Modality
from adaptkit.model.modality_inputs import ModalityInputs
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.run.rehearsal import stand_in_tokenizer

FORMATS_BY_ENDING = {".parquet": "parquet", ".tar": "webdataset"}
TABLE_ENDINGS = (".csv", ".tsv")
MIXTURE = "the files together"
_NUM_LOOKED_AT = 1_000
_TABLES = "a table is checked through a recipe that has its templates (format: table, question, answer)"


def plan_files(
    paths: Sequence[Path],
    *,
    data_format: str | None = None,
    media: Path | None = None,
    media_roots: Sequence[Path] = (),
    modalities: Sequence[str] | None = None,
    tokenizer: str | None = None,
    max_length: int | None = None,
    max_bad_fraction: float | None = None,
    positions: int = 1,
    reads_media: bool = True,
) -> Plan:
    """What to check of data files.

    Args:
        paths: The files.
        data_format: Their format; determined from their content by default.
        media: Folder that media paths are relative to; each file's own folder where not given.
        media_roots: Further folders below which media may lie.
        modalities: Names of those whose media the files have; all installed where not given.
        tokenizer: Folder of a tokenizer, by which lengths are measured; in characters where not given.
        max_length: Longest conversation in tokens.
        max_bad_fraction: Share of samples that may be bad, 0.01 where not given.
        positions: What a medium counts as, in tokens; an encoder would say.
        reads_media: Whether media are decoded.

    Raises:
        DataError: A file's format cannot be determined.
        RecipeError: The format needs more than a file, or the tokenizer has no chat template.
        ModelError: The folder has no tokenizer.
        PluginError: The format or modality does not exist.
    """
    plan = Plan(max_bad_fraction=0.01 if max_bad_fraction is None else max_bad_fraction)
    processor = _processor(_modalities(modalities), tokenizer, positions)
    context = context_of({name: inputs.modality for name, inputs in processor.modalities.items()}, Path())
    if tokenizer is None:
        plan.notes.append("Lengths are in characters: --tokenizer DIR measures tokens.")
        plan.note_unchecked(LENGTHS, WORDS)
    elif positions == 1:
        plan.notes.append("Each medium counts as one token: --positions N counts what the encoder makes of it.")
    plan.note_unchecked("whether an encoder takes the media", *([] if reads_media else [CONTENT]))
    plan.notes += [note for path in paths if (note := _unread(path)) is not None]
    if tokenizer is not None:
        plan.note_end_of_turn(processor.tokenizer)
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    plan.mixtures[MIXTURE] = names
    known = tokenizer is not None
    limit = max_length if known else None
    for name, path in zip(names, paths):
        try:
            found = data_format or tell_format(path, list(context.tags))
            source = _open(path, found, media, media_roots, context)
        except DataError as error:
            plan.unopened.append(Problem("unreadable_file", name, 0, None, str(error)))
            continue
        plan.datasets.append(CheckedDataset(name, source, CheckedMedia(processor), limit, known, known, reads_media))
    return plan


def tell_format(path: Path, modalities: Sequence[str]) -> str:
    """The format of a data file or of a folder of them, from its name, what is in it, or its first rows.

    Raises:
        DataError: The file cannot be read, its rows are not conversations, or the folder is not a dataset.
    """
    if path.is_dir():
        return _format_of_folder(path)
    if path.suffix.lower() in FORMATS_BY_ENDING:
        return FORMATS_BY_ENDING[path.suffix.lower()]
    if path.suffix.lower() in TABLE_ENDINGS:
        raise DataError(f"{path}: {_TABLES}")
    if path.suffix.lower() in COMPRESSED:
        raise DataError(f"{path} is compressed: unpack it")
    found = list(islice(load_rows(path), _NUM_LOOKED_AT))
    rows = [row for row in found if isinstance(row, Mapping)]
    if any("messages" in row for row in rows):
        return "messages"
    if not any("conversations" in row for row in rows):
        if not rows and isinstance(found[0], DataError):
            raise DataError(f"{path}: {found[0]}")
        keys = shown(list(rows[0])) if rows else "none"
        near = next((n for key in ("conversations", "messages") if rows and (n := nearest_name(key, rows[0]))), None)
        meant = "" if near is None else f" Is {near!r:.80} meant?"
        raise DataError(
            f"{path}: its rows have neither 'conversations' nor 'messages' (keys of the first: {keys}), so they are "
            f"not conversations.{meant} If each row is a label or a question with an answer, the file is a table, and "
            f"{_TABLES}"
        )
    # What one row has of ShareGPT's the others may be without
    return "sharegpt" if any(layout_of(row, modalities) == "sharegpt" for row in rows) else "llava"


def _format_of_folder(path: Path) -> str:
    if is_saved_dataset(path):
        return "hf_dataset"
    endings = {child.suffix.lower() for child in path.iterdir() if child.is_file()}
    found = sorted(endings & set(FORMATS_BY_ENDING))
    if len(found) != 1:
        raise DataError(
            f"{path} is a folder, but neither a dataset that save_to_disk wrote nor one of "
            f"{' or '.join(FORMATS_BY_ENDING)} files: name the files in it"
        )
    return FORMATS_BY_ENDING[found[0]]


def _unread(path: Path) -> str | None:
    if not path.is_dir() or is_saved_dataset(path):
        return None
    names = sorted(c.name for c in path.iterdir() if c.is_file() and c.suffix.lower() not in FORMATS_BY_ENDING)
    return f"{path}: these files are not read: {first_few(names, 3)}." if names else None


def _open(path: Path, data_format: str, media: Path | None, media_roots: Sequence[Path], context: DataContext) -> Any:
    manager = get_plugin_manager()
    component = manager.get("data source", data_format)
    fields = set(component.options.model_fields)
    required = {name for name, field in component.options.model_fields.items() if field.is_required()} - {"path"}
    if required or "path" not in fields:
        raise RecipeError(
            f"the format {data_format!r} needs more than a file ({', '.join(sorted(required)) or 'no path'}): check a "
            "recipe that uses it"
        )
    folders = {"media": media and str(media), "media_roots": [str(root) for root in media_roots]}
    given = {"path": str(path), **{key: value for key, value in folders.items() if value and key in fields}}
    options = manager.options("data source", data_format, given)
    missing = component.missing(options, context)
    if missing is not None:
        raise DataError(f"{path}: {missing}")
    return component.build(options, context)


def _modalities(names: Sequence[str] | None) -> dict[str, Modality]:
    manager = get_plugin_manager()
    if names is None:
        names = [component.name for component in manager.components("modality")]
    return {name: manager.build("modality", name, {}) for name in names}


def _processor(modalities: Mapping[str, Modality], tokenizer: str | None, positions: int) -> AdaptkitProcessor:
    found = stand_in_tokenizer(load_chat_template("chatml"), []) if tokenizer is None else open_tokenizer(tokenizer)
    if found.chat_template is None:
        raise RecipeError(
            f"the tokenizer at {tokenizer} has no chat template, so lengths cannot be determined. Check a recipe, "
            "which can name one (base.chat_template)."
        )
    inputs = {
        name: ModalityInputs(name, modality, OnlyRead(positions), len(found) + number)
        for number, (name, modality) in enumerate(modalities.items())
    }
    rows = None if tokenizer is None else embedding_rows(resolve_model_path(tokenizer))
    if rows is not None:
        check_vocabulary(found, rows, f"{tokenizer}: ")
    return AdaptkitProcessor(found, inputs)
