"""Writing a workflow: its own tensors, its configuration, and references to what it was built on."""

from __future__ import annotations

import copy
import json
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from adaptkit.errors import ModelError
from adaptkit.files.hub import cached_snapshots
from adaptkit.files.paths import resolve_model_path
from adaptkit.files.writing import staged_files
from adaptkit.interfaces import Encoder
from adaptkit.model.config import MODEL_TYPE
from adaptkit.model.encoders import folders_of, save_encoder, settled
from adaptkit.model.integrity import write_tensors
from adaptkit.model.origin import is_model_id, origin_of
from adaptkit.model.packages import packages_of
from adaptkit.model.reference import (
    base_reference,
    content_record,
    encoder_relative_to_checkpoint,
    relative_to_checkpoint,
)

if TYPE_CHECKING:
    from adaptkit.model.composite import AdaptkitForConditionalGeneration

ENCODERS_FOLDER = "encoders"
TENSORS_FILE = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000

_remembered: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def save_workflow(
    model: AdaptkitForConditionalGeneration,
    directory: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str | None = None,
    for_upload: bool = False,
) -> None:
    """Write the workflow's own tensors as safetensors, and a `config.json` that names base and encoders.

    Frozen models are named by id or path and by hashes of what they hold now; encoders that were given as objects are
    written to `encoders/<modality>/`. Each file takes its place when it is whole, so that a link is replaced and what
    it leads to is left alone.

    Args:
        model: The workflow.
        directory: Where to.
        state_dict: Its own tensors, where they had to be gathered from several processes.
        max_shard_size: Largest file of tensors, unless a single one is larger; 5 GB by default.
        for_upload: Whether other machines are to read it, so that folders of this one must not be named.

    Raises:
        ModelError: The folder holds the base, an encoder or another model, or is a file.
    """
    refuse_overwriting(directory, model)
    directory = directory.resolve()
    own = _own_tensors(model, state_dict)
    split = _split(own, max_shard_size)
    config = _described(model, directory, for_upload=for_upload)
    outdated = set(_weight_files(directory))
    with staged_files(directory) as folder:
        _save_tensors(own, folder, split)
        for name, entry in config.modalities.items():
            save_encoder(cast(Encoder, model.source_encoders[name]), entry["encoder"], folder / ENCODERS_FOLDER / name)
        config.save_pretrained(folder)
        # Unlike save_pretrained it takes what has no effect, as a base may have it
        model.generation_config.to_json_file(folder / "generation_config.json")
        outdated -= {directory / file.name for file in folder.iterdir()}
    for other in outdated:
        other.unlink()


def _own_tensors(
    model: AdaptkitForConditionalGeneration, state_dict: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor]:
    """The workflow's own tensors: those in memory, or those of a caller, from which no other model can come.

    Raises:
        ModelError: The caller's are not the workflow's.
    """
    own = model.trainable_state_dict()
    if state_dict is None:
        return own
    everything = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    absent, other = own.keys() - state_dict.keys(), state_dict.keys() - dict(everything).keys()
    if absent or other:
        raise ModelError(
            f"state_dict is not this workflow's: {len(absent)} of its tensors are missing {sorted(absent)[:3]}, "
            f"{len(other)} belong to no part of it {sorted(other)[:3]}. trainable_state_dict() gives its own."
        )
    return {name: state_dict[name] for name in own}


def _described(model: AdaptkitForConditionalGeneration, directory: Path, *, for_upload: bool) -> Any:
    """The workflow's config as it is to be written at a place."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.base = relative_to_checkpoint(reference_of(model.base), directory)
    config.text_config.name_or_path = ""
    for name, entry in config.modalities.items():
        reference = settled(entry["encoder"]) if "name" in entry["encoder"] else entry["encoder"]
        reference = {**reference, **record_of(model.source_encoders[name])}
        entry["encoder"] = encoder_relative_to_checkpoint(reference, directory)
        if for_upload:
            refuse_folder(name, reference)
    if for_upload:
        config.base = _without_folder(reference_of(model.base))
    config.packages = packages_of(config)
    return config


def _without_folder(reference: Mapping[str, Any]) -> dict[str, Any]:
    name = reference["name_or_path"]
    if not Path(name).is_absolute():
        return dict(reference)
    warnings.warn(
        f"the base was loaded from the folder {name}, which is not uploaded, so the uploaded config.json does not name "
        "it: who loads the workflow has to pass it, adaptkit.load(..., base=base). Where the base is on the hub, set "
        "model.base.name_or_path to its id and upload again.",
        stacklevel=2,
    )
    return {**reference, "name_or_path": ""}


def refuse_folder(modality: str, reference: Mapping[str, Any]) -> None:
    """Refuse to upload the reference of an encoder that is a folder of this machine.

    Raises:
        ModelError: It is one.
    """
    path = (reference.get("options") or {}).get("path")
    if isinstance(path, str) and Path(path).is_absolute():
        raise ModelError(
            f"modality {modality!r}: its encoder is in the folder {path}, which others do not have. Where it is on "
            f"the hub, set config.modalities[{modality!r}]['encoder']['options']['path'] to its id, and the same in "
            f"the processor's modalities[{modality!r}].spec. Else build the workflow with the encoder as a model "
            "object, which is uploaded with it."
        )


def refuse_overwriting(directory: Path, model: AdaptkitForConditionalGeneration | None = None) -> None:
    """Refuse to write a workflow over what it was built on, or over another model.

    Raises:
        ModelError: The folder is that of the base or of an encoder, holds a model that is no workflow, or is a file.
    """
    named, directory = directory, directory.resolve()  # `..` counts, too, after a folder that is yet to be made
    if directory.exists() and not directory.is_dir():
        raise ModelError(f"{named} is a file; a checkpoint is a folder. Name another place.")
    for what, folder in _sources(model):
        if folder.exists() and directory.exists() and folder.samefile(directory):
            raise ModelError(f"{named} is the folder of {what}, which would be overwritten. Name another folder.")
    found = _model_type(directory / "config.json")
    if found not in (None, MODEL_TYPE):
        raise ModelError(
            f"{named} holds a model that is no workflow ({found}), which would be overwritten. Name another folder."
        )
    weights = next(filter(_is_only_copy, _weight_files(directory)), None) if found is None else None
    if weights is not None:
        raise ModelError(
            f"{named} holds weights of another model ({weights.name}, without a config.json of a workflow), which "
            "would be overwritten. Name another folder."
        )


def _weight_files(directory: Path) -> list[Path]:
    """Files in a folder with names that the tensors of a workflow may get."""
    return [*directory.glob("model-*-of-*.safetensors"), *directory.glob(f"{TENSORS_FILE}*")]


def _is_only_copy(path: Path) -> bool:
    """Whether content is lost where a file is replaced: not that of a link, of whichever kind."""
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1


def _sources(model: AdaptkitForConditionalGeneration | None) -> list[tuple[str, Path]]:
    """Folders that a workflow's frozen models were loaded from."""
    if model is None:
        return []
    origin = origin_of(model.base)
    folders = cached_snapshots(origin.name) if is_model_id(origin) else []
    if origin.name and not is_model_id(origin):
        folders = [Path(resolve_model_path(origin.name))]
    found = [("the base", folder) for folder in folders]
    for name, encoder in model.source_encoders.items():
        reference = model.config.modalities[name]["encoder"]
        found += [(f"the encoder of {name!r}", folder) for folder in folders_of(encoder, reference)]
    return found


def _model_type(path: Path) -> str | None:
    """What a config.json says that it describes; None where there is none, or none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(values.get("model_type") or "of unknown type") if isinstance(values, dict) else None


def _split(state: Mapping[str, Tensor], max_shard_size: int | str | None) -> Any:
    """Which tensors go to which file: one, or shards where one would be larger than allowed.

    Raises:
        ModelError: The size is none.
    """
    size = MAX_SHARD_BYTES if max_shard_size is None else max_shard_size
    is_number = isinstance(size, int) and not isinstance(size, bool)
    if not (isinstance(size, str) or (is_number and size > 0)):
        raise ModelError(f"max_shard_size={size!r}: give a number of bytes, or text such as '5GB'.")
    try:
        return split_torch_state_dict_into_shards(dict(state), max_shard_size=size)
    except ValueError as error:
        raise ModelError(f"max_shard_size={size!r}: {error}") from error


def _save_tensors(state: Mapping[str, Tensor], directory: Path, split: Any) -> None:
    """Write each file, and an index where there are several."""
    for file, names in split.filename_to_tensors.items():
        write_tensors({name: state[name].cpu() for name in names}, directory / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (directory / f"{TENSORS_FILE}.index.json").write_text(text, encoding="utf-8")


# -- frozen models that are not to be hashed at every save ------------------------------------------------------------


def remember_content(model: AdaptkitForConditionalGeneration) -> None:
    """Record what a checkpoint says of base and encoders, before their weights are sharded over processes."""
    _remembered[model.base] = base_reference(model.base)
    for encoder in model.source_encoders.values():
        _remembered[encoder] = content_record(cast(Encoder, encoder))


@contextmanager
def frozen_content(model: AdaptkitForConditionalGeneration) -> Iterator[None]:
    """Hash base and encoders once for all checkpoints that are saved inside; a stage changes neither."""
    remember_content(model)
    try:
        yield
    finally:
        for module in (model.base, *model.source_encoders.values()):
            del _remembered[module]


def reference_of(base: Any) -> dict[str, Any]:
    """`base_reference` of a base as it is now, or as it was recorded."""
    return dict(_remembered[base]) if base in _remembered else base_reference(base)


def record_of(encoder: Any) -> dict[str, str]:
    """`content_record` of an encoder as it is now, or as it was recorded."""
    return dict(_remembered[encoder]) if encoder in _remembered else content_record(encoder)
