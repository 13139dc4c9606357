"""Reading and writing safetensors checkpoints of any size with one shard in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from torch import Tensor

from adaptkit.errors import ModelError
from adaptkit.files.loading import indexed_files, reading
from adaptkit.files.writing import write_json
from adaptkit.model.integrity import refuse_non_finite, write_tensors
from adaptkit.model.overwriting import TENSORS_FILE as SINGLE_FILE
from adaptkit.model.saving import MAX_SHARD_BYTES


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and what it is, known without reading it."""

    file: Path
    shape: tuple[int, ...]
    num_bytes: int


class TensorSource:
    """The tensors of a checkpoint folder, read one at a time.

    Args:
        folder: Holds `model.safetensors`, or shards with their index.

    Raises:
        ModelError: There are no safetensors there, an index names what is absent, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: dict[str, StoredTensor] = {}
        for file in _files_of(folder):
            for name, entry in _read_header(file).items():
                start, stop = entry["data_offsets"]
                self.stored[name] = StoredTensor(file, tuple(entry["shape"]), stop - start)

    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, sorted."""
        return sorted(name for name in self.stored if name.startswith(prefix))

    def read(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            ModelError: It holds non-finite values.
        """
        with reading(self.stored[name].file), safe_open(self.stored[name].file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        refuse_non_finite([(name, tensor)], str(self.stored[name].file))
        return tensor


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder. Name the folder that holds config.json and the safetensors.")
    index = folder / f"{SINGLE_FILE}.index.json"
    if index.exists():
        return [folder / name for name in indexed_files(index)]
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise ModelError(
            f"{folder} holds pickled weights ({pickled[0]}), which could run code when read; adaptkit reads "
            "safetensors only. Where you trust the file, convert it with transformers' save_pretrained."
        )
    many = f"{len(found)} safetensors files and no {index.name}" if found else f"no {SINGLE_FILE}"
    raise ModelError(f"{folder} holds {many}. Name the folder of a complete checkpoint.")


def _read_header(file: Path) -> dict[str, Any]:
    """Names, shapes and offsets at the head of a safetensors file, which `safe_open` has checked first."""
    with reading(file, advice="Fetch it again."):
        with safe_open(file, framework="pt"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header


def write_checkpoint(
    source: TensorSource,
    names: Mapping[str, str],
    folder: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    observe: Callable[[str, Tensor], None] | None = None,
) -> None:
    """Copy tensors under other names, one output shard in memory at a time.

    Args:
        names: For each new name the name in `source`.
        folder: Where to write `model.safetensors`, or shards and their index.
        max_shard_bytes: No shard is larger, unless a single tensor is.
        observe: Called with each new name and tensor, in the order of names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = split_state_dict_into_shards_factory(
        {new: source.stored[old] for new, old in sorted(names.items())},
        get_storage_size=lambda stored: stored.num_bytes,
        filename_pattern=SINGLE_FILE.replace(".", "{suffix}."),
        max_shard_size=max_shard_bytes,
    )
    for file, shard in plan.filename_to_tensors.items():
        tensors: dict[str, Tensor] = {}
        for new in shard:
            tensors[new] = source.read(names[new])
            if observe is not None:
                observe(new, tensors[new])
        write_tensors(tensors, folder / file)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / f"{SINGLE_FILE}.index.json", index)
