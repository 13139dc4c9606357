"""Writing a workflow: its own tensors, its configuration, and references to what it was built on."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor
from transformers import PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.files.writing import staged_files, write_json
from adaptkit.interfaces import Encoder
from adaptkit.model.card.facts import Card
from adaptkit.model.card.readme import Readme
from adaptkit.model.card.writing import CardFiles, updated_card, write_card
from adaptkit.model.config import packages_of
from adaptkit.model.encoders import save_encoder
from adaptkit.model.inspection import describe_components
from adaptkit.model.integrity import base_reference, content_record, write_tensors
from adaptkit.model.modality import WorkflowModality, read_modalities
from adaptkit.model.overwriting import TENSORS_FILE, refuse_overwriting, weight_files
from adaptkit.model.reference import relative_to_checkpoint, settled
from adaptkit.model.uploading import check_upload_options, upload

ENCODERS_FOLDER = "encoders"
MAX_SHARD_BYTES = 5_000_000_000

# A mixin beside the model class, whose methods it calls
_Model: Any = PreTrainedModel if TYPE_CHECKING else object


class WorkflowSavingMixin(_Model):  # type: ignore[misc]
    """How a composite is saved, uploaded and loaded."""

    loader: Callable[..., Any]
    """`from_pretrained`, set by `adaptkit.model.checkpoint`, which knows how to find bases and encoders."""

    card: Card
    """Facts that the model card is made of, beside the config: how it was trained, what it scored."""

    loaded_card: CardFiles | None = None
    """The model card of the folder that it was loaded from."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a workflow; see `adaptkit.load`."""
        if args:
            raise ModelError("from_pretrained of a workflow takes keyword arguments only; see adaptkit.load.")
        return cls.loader(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        raise ModelError(
            "a workflow is not made of a configuration alone: it shares its base's tensors. Use adaptkit.adapt or "
            "from_pretrained."
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str | None = None,
        variant: str | None = None,
        token: bool | str | None = None,
        save_peft_format: bool = True,
        save_original_format: bool = True,
        distributed_checkpoint: bool = False,
        safe_serialization: bool = True,
        model_card: bool = True,
        **hub_options: Any,
    ) -> None:
        """Write the workflow's own tensors (safetensors), its configuration and a model card; see `adaptkit.load`.

        Args:
            save_directory: A folder, which must not hold the base, an encoder or another model that is not a workflow.
            is_main_process: Whether this process writes; several of a distributed run may call this.
            state_dict: The workflow's own tensors, where they had to be gathered from several processes.
            push_to_hub: Whether to upload it as well, to `repo_id`, by default named like the folder.
            max_shard_size: Largest file of tensors, in bytes or such as `"10GB"`; 5 GB by default.
            variant: Not supported.
            token: Of the hub's user.
            save_peft_format: Without meaning here.
            save_original_format: Without meaning here.
            distributed_checkpoint: Not supported.
            safe_serialization: Tensors are always written as safetensors.
            model_card: Whether to write `README.md`, and the facts that it is made of. What a person wrote there, above
                or below the lines that mark what is generated, is kept.
            hub_options: `repo_id` and what `push_to_hub` takes.

        Raises:
            ArgumentError: An argument is unknown.
            ModelError: An argument is not supported, the folder holds another model, or its README cannot be read.
        """
        if variant or distributed_checkpoint:
            name = "variant" if variant else "distributed_checkpoint"
            raise ModelError(f"save_pretrained: {name} is not supported for workflows. Leave it out.")
        if not safe_serialization:
            raise ModelError("safe_serialization=False: tensors are written as safetensors only.")
        known = {*inspect.signature(self.save_pretrained).parameters} - {"hub_options"}
        check_upload_options(hub_options, "save_pretrained", known, push_to_hub=push_to_hub)
        if not is_main_process:
            return
        directory = Path(save_directory)
        save_workflow(self, directory, state_dict=state_dict, max_shard_size=max_shard_size, model_card=model_card)
        if push_to_hub:
            repo_id = hub_options.pop("repo_id", directory.resolve().name)
            self.push_to_hub(repo_id, token=token, max_shard_size=max_shard_size, state_dict=state_dict, **hub_options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        max_shard_size: int | str | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        tags: list[str] | None = None,
        **options: Any,
    ) -> Any:
        """Upload what `save_pretrained` writes; arguments are those of transformers, and `state_dict`.

        A base that was loaded from a folder is not named in what is uploaded, with a warning.

        Raises:
            ArgumentError: An argument is unknown.
            ModelError: An encoder was loaded from a folder by name, which others do not have.
        """

        def save(folder: Path, whole_id: str) -> None:
            card = self.card
            if not options.get("subfolder"):
                self.card = card.model_copy(update={"repo_id": whole_id})  # for what is uploaded
            try:
                save_workflow(self, folder, state_dict=state_dict, max_shard_size=max_shard_size, for_upload=True)
            finally:
                self.card = card

        check_upload_options(options, "push_to_hub", ["max_shard_size", "state_dict"])
        return upload(save, repo_id, "Upload model", tags=[*(self.model_tags or []), *(tags or [])] or None, **options)


def save_workflow(
    model: WorkflowSavingMixin,
    directory: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str | None = None,
    for_upload: bool = False,
    model_card: bool = True,
) -> None:
    """Write the workflow's own tensors as safetensors, and a `config.json` that names base and encoders.

    Frozen models are named by id or path and by hashes of what they hold now; encoders that were given as objects are
    written to `encoders/<modality>/`. A model card says what else is known. Each file takes its place when it is whole,
    so that a link is replaced and its target is unchanged. What is written `for_upload` must not name folders of this
    machine.

    Raises:
        ModelError: The folder holds the base, an encoder or another model, or is a file.
    """
    refuse_overwriting(directory, model)
    directory = directory.resolve()
    own = _own_tensors(model, state_dict)
    split = _split(own, max_shard_size)
    config = _described(model, directory, for_upload=for_upload)
    by_hand = _written_by_hand(model, directory) if model_card else None
    outdated = set(weight_files(directory))
    with staged_files(directory) as folder:
        _save_tensors(own, folder, split)
        for name, entry in config.modalities.items():
            save_encoder(cast(Encoder, model.source_encoders[name]), entry["encoder"], folder / ENCODERS_FOLDER / name)
        config.save_pretrained(folder)
        # Unlike save_pretrained it takes what has no effect, as a base may have it
        model.generation_config.to_json_file(folder / "generation_config.json")
        if model_card:
            model.card = updated_card(model.card, own, describe_components(model), folder, directory)
            write_card(folder, model.card, by_hand)
        outdated -= {directory / file.name for file in folder.iterdir()}
    for other in outdated:
        other.unlink()


def _written_by_hand(model: WorkflowSavingMixin, directory: Path) -> Readme | None:
    """What a person wrote in the README that is to be replaced, or in that of the checkpoint that was loaded."""
    there = CardFiles.of(directory)
    loaded: CardFiles | None = model.loaded_card
    return there.by_hand() if there.readme is not None or loaded is None else loaded.by_hand()


def _own_tensors(model: WorkflowSavingMixin, state_dict: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    """The workflow's own tensors: those in memory, or those of a caller, from which no other model can come.

    Raises:
        ModelError: The caller's are not the workflow's.
    """
    own: dict[str, Tensor] = model.trainable_state_dict()
    if state_dict is None:
        return own
    everything = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    absent, other = own.keys() - state_dict.keys(), state_dict.keys() - dict(everything).keys()
    if absent or other:
        raise ModelError(
            f"state_dict is not this workflow's: {len(absent)} of its tensors are missing {sorted(absent)[:3]}, "
            f"{len(other)} are not its own {sorted(other)[:3]}. trainable_state_dict() gives its own."
        )
    return {name: state_dict[name] for name in own}


def _described(model: WorkflowSavingMixin, directory: Path, *, for_upload: bool) -> Any:
    """The workflow's config as it is to be written at a place."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.base = relative_to_checkpoint(base_reference(model.base), directory)
    config.text_config.name_or_path = ""
    for name, described in read_modalities(model.config.modalities, "model.config").items():
        reference = settled(described.encoder) if described.encoder.get("name") else described.encoder
        recorded = replace(described, encoder={**reference, **content_record(model.source_encoders[name])})
        if for_upload:
            refuse_folder(name, recorded)
        config.modalities[name] = recorded.relative_to(directory).to_dict()
    if for_upload:
        config.base = _without_folder(base_reference(model.base))
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


def refuse_folder(modality: str, described: WorkflowModality) -> None:
    """Refuse to upload the reference of an encoder that is a folder of this machine.

    Raises:
        ModelError: It is one.
    """
    path = described.encoder_options.get("path")
    if isinstance(path, str) and Path(path).is_absolute():
        raise ModelError(
            f"modality {modality!r}: its encoder is in the folder {path}, which others do not have. Where it is on "
            f"the hub, set config.modalities[{modality!r}]['encoder']['options']['path'] to its id, and the same in "
            f"the processor's modalities[{modality!r}].spec.encoder. Else build the workflow with the encoder as a "
            "model object, which is uploaded with it."
        )


def _split(state: Mapping[str, Tensor], max_shard_size: int | str | None) -> Any:
    """Which tensors go to which file: one, or shards where one would be larger than allowed.

    Raises:
        ModelError: The size is not valid.
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
        write_json(directory / f"{TENSORS_FILE}.index.json", index, sort_keys=True)
